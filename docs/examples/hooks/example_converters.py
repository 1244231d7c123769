"""A folder of images and a folder of masks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from segplug import Component, hookimpl
from segplug.errors import DataError
from segplug.protocols import Converter


def from_folders(source: Path, target: Path, *, channel: str = "MRI", ending: str = ".nii.gz") -> Path:
    """Take `source/images/NAME` and `source/masks/NAME` as image and label map of a case."""
    images = sorted((source / "images").glob(f"*{ending}"))
    for image in images:
        mask, case = source / "masks" / image.name, image.name.removesuffix(ending)
        if not mask.exists():
            raise DataError(f"{image}: has no mask; expected {mask}")
        for file, folder, name in ((image, "imagesTr", f"{case}_0000{ending}"), (mask, "labelsTr", image.name)):
            (target / folder).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / folder / name)
    description = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, "foreground": 1},
        "numTraining": len(images),
        "file_ending": ending,
    }
    (target / "dataset.json").write_text(json.dumps(description, indent=4))
    return target


@hookimpl
def segplug_converters() -> Iterator[Component[Converter]]:
    yield Component("folders", f"{__name__}:from_folders", "a folder of images and one of masks")
