"""Label maps made from others: with other numbers, in another format, or from one mask a structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import Image, Labels
from segplug.runtime.case_reading import read_labels
from segplug.runtime.geometry import differences
from segplug.runtime.label_counts import count_labels
from segplug_builtin import writers
from segplug_builtin.formats.tiff import read_spacing
from segplug_builtin.readers import ORDER

WRITERS = {
    "SimpleITKIO": writers.write_simpleitk,
    "Tiff3DIO": writers.write_tiff_stack,
    "NaturalImage2DIO": writers.write_natural_image,
}

FLAT = 999.0
"""Spacing along the axis that a 2D image does not have, as nnU-Net's reader gives it."""


def read_any(paths: Sequence[Path]) -> Image:
    """An image by the first of nnU-Net's readers, in its order, that reads it.

    Raises:
        DataError: none does.
    """
    first: DataError | None = None
    for _, endings, read in ORDER:
        if paths[0].name.lower().endswith(endings):
            try:
                return read(paths)
            except DataError as error:
                first = first or error
    raise first or DataError(f"{paths[0]}: found a format that no reader has; expected one of NIfTI, NRRD, MHA, TIFF, "
                             "PNG or BMP. Convert the file")  # fmt: skip


def label_values(path: Path) -> list[int]:
    """The numbers in a label map, sorted.

    Raises:
        DataError: it is damaged, or no label map.
    """
    return sorted(count_labels(_read(path).array))


def write_renumbered(
    targets: tuple[Path, ...], source: Path, mapping: Mapping[int, int], spacing: Path | None = None
) -> None:
    """Write a label map with other numbers, or in the format of the target's name.

    Args:
        spacing: the `CASE.json` that a TIFF stack has it in.

    Raises:
        DataError: it is damaged or no label map, or has numbers that `mapping` does not.
    """
    labels = _read(source)
    counts = count_labels(labels.array)
    unknown = {value: n for value, n in counts.items() if value not in mapping}
    if unknown:
        found = ", ".join(f"{value} ({n} voxels)" for value, n in list(unknown.items())[:10])
        raise DataError(
            f"{source}: found the label {found}; expected {', '.join(map(str, sorted(mapping)))}. Name it with --label "
            f"NAME={next(iter(unknown))}, or give it to another with --label NAME=VALUE,{next(iter(unknown))}; to "
            f"drop it: --label background={next(iter(unknown))}"
        )
    array: NDArray[np.integer[Any]] = np.zeros(labels.array.shape, np.uint16)
    for old in counts:
        array[labels.array == old] = mapping[old]
    _write(targets[0], Labels(array, labels.geometry), spacing)


def write_merged(
    targets: tuple[Path, ...], masks: Sequence[tuple[int, Path]], overlap: bool, spacing: Path | None = None
) -> None:
    """Write one label map from a mask a structure; what is not 0 in a mask belongs to it.

    Args:
        masks: number and file of each structure present.
        overlap: where masks overlap, the later one wins; else that is an error.
        spacing: the `CASE.json` that a TIFF stack has it in.

    Raises:
        DataError: a mask is damaged, has several values, or lies on another grid than the first; or masks overlap.
    """
    first_file = masks[0][1]
    merged: NDArray[np.integer[Any]] | None = None
    geometry = None
    for number, file in masks:
        mask = _read(file)
        present = [value for value in count_labels(mask.array) if value]
        if len(present) > 1:
            raise DataError(
                f"{file}: found the values {', '.join(map(str, [0, *present[:10]]))}; expected a mask of 0 and one "
                "other value. Leave {label} out of --masks if the file is a label map"
            )
        if merged is None or geometry is None:
            merged, geometry = np.zeros(mask.array.shape, np.uint16), mask.geometry
        for difference in differences(mask.geometry, mask.shape, geometry, merged.shape):
            if not difference.aligned:
                raise DataError(
                    f"{file}: found {difference.what} {difference.found}; expected {difference.expected}, as "
                    f"{first_file} has it. Resample the mask to the grid of the others"
                )
        here = mask.array != 0
        if not overlap and (merged[here] != 0).any():
            covered = int(np.count_nonzero(merged[here]))
            other = next(f for n, f in masks if n == int(merged[here][merged[here] != 0][0]))
            raise DataError(
                f"{file}: found {covered} voxels that belong to {other} too; expected masks that do not overlap. Call "
                "with --overlap to let the label win that comes later in the order of --label"
            )
        merged[here] = number
    assert merged is not None
    assert geometry is not None
    _write(targets[0], Labels(merged, geometry), spacing)


def _read(path: Path) -> Labels:
    return read_labels(read_any, path)


def _write(path: Path, labels: Labels, spacing: Path | None) -> None:
    if spacing is not None and labels.geometry.spacing[0] != FLAT:  # 2D images have none
        labels = replace(labels, geometry=replace(labels.geometry, spacing=read_spacing(spacing)))
    name = writers.writer_for(path)
    if name == "Tiff3DIO" and labels.geometry.spacing[0] == FLAT:  # .tif is both a 2D format and a stack
        name = "NaturalImage2DIO"
    if name is None:
        raise DataError(f"{path.name}: label maps cannot be written in this format; expected images in NIfTI, NRRD, "
                        "MHA, TIFF, PNG or BMP. Convert the images")  # fmt: skip
    WRITERS[name](path, labels)
