"""Medical Segmentation Decathlon: one file a case, the channels of several modalities along its fourth axis."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segplug.errors import DataError
from segplug.model import Conversion, ConvertedFile
from segplug.protocols import recognised_by
from segplug.runtime.findings import Finding, raise_errors
from segplug_builtin.converters.fourth_axis import split_channels, volumes_of
from segplug_builtin.converters.old_description import ENDING, image_files, is_old, named_by_channel, read_old

NOT_KEPT = ("modality", "training", "test")
"""Entries of dataset.json that nnU-Net's converter drops."""


def looks_like_msd(source: Path) -> str:
    """A folder of old layout whose images are named like their label maps."""
    return "its dataset.json (modality) and one image file a case" if is_old(source) and _whole_cases(source) else ""


@recognised_by(looks_like_msd)
def convert_msd(source: Path) -> Conversion:
    """Take every channel of a 4D image for a file of its own, and everything else as it is.

    The result is that of nnU-Net's `nnUNetv2_convert_MSD_dataset`, with the headers of the source kept bit by bit.

    Raises:
        DataError: dataset.json is not the Decathlon's, or files are missing, damaged or of another number of channels.
    """
    described = read_old(source)
    if named_by_channel(source):
        raise DataError(
            f"{source}: found images named CASE_0000{ENDING}, one file a channel; expected one file a case, named as "
            "its label map. This is nnU-Net v1's layout: convert it with --from nnunet-v1"
        )
    images, labels = image_files(source / "imagesTr"), image_files(source / "labelsTr")
    labelled = {p.name for p in labels}
    findings = [_unlabelled(p, source) for p in images if p.name not in labelled]
    if not images:
        findings.append(_empty(source / "imagesTr"))
    files: list[ConvertedFile] = []
    for part in ("imagesTr", "imagesTs"):
        for image in image_files(source / part):
            try:
                files.append(_convert_image(image, part, len(described.channels)))
            except DataError as error:
                findings.append(_damaged(image, str(error)))
    raise_errors(findings, source.name)
    names = {p.name for p in images}
    files += [ConvertedFile(_case(p), (p,), (f"labelsTr/{p.name}",)) for p in labels if p.name in names]
    notes = (*described.notes, *described.count_note(len(images)))
    unused = sorted(labelled - names)
    if unused:
        notes += (f"label maps without an image are left out: {', '.join(unused)}",)
    return Conversion(described.modern(len(images), NOT_KEPT), tuple(files), notes)


def _whole_cases(source: Path) -> bool:
    images, labels = image_files(source / "imagesTr"), {p.name for p in image_files(source / "labelsTr")}
    return any(p.name in labels for p in images)


def _case(path: Path) -> str:
    return path.name.removesuffix(ENDING)


def _convert_image(image: Path, part: str, channels: int) -> ConvertedFile:
    found, is_4d = volumes_of(image)
    if found != channels:
        raise DataError(
            f"{image}: found {found} channels; expected {channels}, as modality of dataset.json says. Correct "
            "dataset.json in a copy of the source, or restore the image"
        )
    targets = tuple(f"{part}/{_case(image)}_{channel:04d}{ENDING}" for channel in range(channels))
    return ConvertedFile(_case(image), (image,), targets, partial(split_channels, source=image) if is_4d else None)


def _unlabelled(image: Path, source: Path) -> Finding:
    return Finding(
        "missing label", _case(image), image, "an image without label map", f"{source / 'labelsTr' / image.name}",
        "In a copy of the source, add the label map, or move the image to imagesTs",
    )  # fmt: skip


def _damaged(image: Path, text: str) -> Finding:
    found, _, rest = text.removeprefix(f"{image}: ").removeprefix("found ").partition("; expected ")
    expected, _, remedy = rest.partition(". ")
    return Finding(
        "image", _case(image), image, found, expected or "a whole NIfTI file", remedy or "Restore it from its source"
    )


def _empty(folder: Path) -> Finding:
    return Finding(
        "no cases", "", folder, "no image", f"files ending in {ENDING}", "Check that the archive was unpacked whole"
    )
