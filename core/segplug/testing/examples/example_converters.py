"""A folder of images and a folder of masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from segplug import Component, hookimpl
from segplug.errors import DataError, UsageError
from segplug.model import Conversion, ConvertedFile
from segplug.protocols import Converter, recognised_by


def has_scans_and_masks(source: Path) -> str:
    there = (source / "scans").is_dir() and (source / "masks").is_dir()
    return "folders named scans and masks" if there else ""


@recognised_by(has_scans_and_masks)
def from_scans(source: Path, *, channel: Sequence[str] = ("MRI",), ending: str = ".nii.gz") -> Conversion:
    """Take `source/scans/NAME` and `source/masks/NAME` as image and label map of a case."""
    if len(channel) != 1:
        raise UsageError(f"--channel {', '.join(channel)}: expected one name, as scans are of one channel")
    images = sorted((source / "scans").glob(f"*{ending}"))
    if not images:
        raise DataError(f"{source}: expected images scans/*{ending} and masks of the same names, found none")
    files = []
    for image in images:
        mask, case = source / "masks" / image.name, image.name.removesuffix(ending)
        if not mask.exists():
            raise DataError(f"case {case}: {image}: has no mask; expected {mask}. Add the mask")
        files.append(ConvertedFile(case, (image,), (f"imagesTr/{case}_0000{ending}",)))
        files.append(ConvertedFile(case, (mask,), (f"labelsTr/{case}{ending}",)))
    description = {
        "channel_names": {"0": channel[0]},
        "labels": {"background": 0, "foreground": 1},
        "numTraining": len(images),
        "file_ending": ending,
    }
    return Conversion(description, tuple(files))


@hookimpl
def segplug_converters() -> Iterator[Component[Converter]]:
    yield Component("scans", f"{__name__}:from_scans", "a folder of scans and one of masks")
