"""A raw data set from arrays: for training, whose data lie on disk so that it can be continued."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from segplug.arrays.images import FILE_ENDING, ONE_SLICE, LabelValues, dataset_json, usual_project
from segplug.arrays.planning import READER
from segplug.errors import UsageError
from segplug.model import Image, Labels
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.files import write_json
from segplug.runtime.new_dataset import making_dataset
from segplug.runtime.prediction_output import find_writer

_CASE = re.compile(r"[\w.+-]+")


def write_dataset(
    folder: str | Path,
    cases: Iterable[tuple[str, Image, Labels]],
    *,
    channels: Sequence[str],
    labels: LabelValues,
    regions_class_order: Sequence[int] = (),
) -> Path:
    """Write a raw data set in nnU-Net's layout, `.nii.gz`. It appears once it is complete.

    Args:
        folder: a new one, named `DatasetXXX_NAME`.
        cases: name, image and label map of each; taken one at a time.
        channels: their names, which decide about normalisation: `CT` wants to be called so.
        labels, regions_class_order: see `label_set`.

    Returns:
        The folder.

    Raises:
        UsageError: the folder exists, there are no cases, a name is used twice or cannot be one of files, or image and
            labels of a case differ in shape or have not the channels.
        DataError: the labels cannot be.
    """
    target = Path(folder).expanduser()
    if not re.fullmatch(r"Dataset\d{3,}_.+", target.name):
        raise UsageError(f"{target}: expected a folder named DatasetXXX_NAME, XXX being a number of three digits")
    described = parse_description(
        dataset_json(channels, labels, cases=1, regions_class_order=regions_class_order), target.name, target
    )
    writer = find_writer(usual_project().kernel, READER, FILE_ENDING, described.labels)
    names: set[str] = set()
    target.parent.mkdir(parents=True, exist_ok=True)
    with making_dataset(target) as made:
        for part in ("imagesTr", "labelsTr"):
            (made / part).mkdir()
        for name, image, label_map in cases:
            if name in names or not _CASE.fullmatch(name):
                raise UsageError(f"case {name!r}: expected a name of letters, digits, '_', '-', '+' or '.', each once")
            if len(image.array) != len(channels) or image.shape != label_map.shape:
                raise UsageError(
                    f"case {name}: image {image.array.shape}, labels {label_map.shape}; expected "
                    f"{len(channels)} channels ({', '.join(channels)}) and labels of the image's shape"
                )
            names.add(name)
            for number, _ in enumerate(channels):
                _write_channel(made / "imagesTr" / f"{name}_{number:04d}{FILE_ENDING}", image, number)
            writer(made / "labelsTr" / f"{name}{FILE_ENDING}", Labels(label_map.array, image.geometry))
        if not names:
            raise UsageError(f"{target}: no cases")
        content = dataset_json(channels, labels, cases=len(names), regions_class_order=regions_class_order)
        write_json(made / "dataset.json", content)
    return target


def _write_channel(path: Path, image: Image, channel: int) -> None:
    """Write one channel with SimpleITK, its place as the image has it."""
    import SimpleITK as sitk

    array, geometry = image.array[channel], image.geometry
    flat = len(array) == 1 and geometry.spacing[0] == ONE_SLICE * max(geometry.spacing[1:])
    written = sitk.GetImageFromArray(array[0] if flat else array)
    written.SetSpacing([float(size) for size in reversed(geometry.spacing[1:] if flat else geometry.spacing)])
    if len(geometry.origin) == written.GetDimension():
        written.SetOrigin(list(geometry.origin))
    if len(geometry.direction) == written.GetDimension() ** 2:
        written.SetDirection(list(geometry.direction))
    sitk.WriteImage(written, str(path), useCompression=True)
