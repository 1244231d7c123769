"""Arrays with their place in the world, and what the numbers in a label map mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from segplug.errors import UsageError
from segplug.model import DatasetDescription, Geometry, Image, Labels, LabelSet
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.project import Project, open_project

FILE_ENDING = ".nii.gz"
"""Of data sets that are made from arrays."""

ONE_SLICE = 999.0
"""Spacing between slices of a picture, in units of its larger pixel size (nnU-Net's rule for 2D files)."""

LabelValues = LabelSet | Mapping[str, Any]
"""A label set, or names with a number (or, for a region, numbers) each, as in dataset.json."""


def image(array: ArrayLike, spacing: Sequence[float]) -> Image:
    """An image from an array.

    Args:
        array: numbers, (z, y, x) or (channels, z, y, x); a picture with a `spacing` of two (y, x) or (channels, y, x).
            Taken as float32; an array that is so already is not copied.
        spacing: size of a voxel along z, y, x (or y, x), in mm as a rule.

    Raises:
        UsageError: the array has another number of axes, or a spacing is not a positive number.
    """
    values = np.asarray(array)
    if values.dtype.kind not in "fiub":
        raise UsageError(f"image of type {values.dtype}; expected numbers")
    sizes, axes = _spacing(spacing), len(spacing)
    if values.ndim == axes:
        values = values[None]
    if values.ndim != axes + 1:
        raise UsageError(
            f"image of shape {np.shape(array)} with a spacing of {axes} numbers; expected {axes} axes, or "
            f"{axes + 1} with the channels first"
        )
    values = values[:, None] if axes == 2 else values
    return Image(values.astype(np.float32, copy=False), Geometry(sizes))


def labels(array: ArrayLike, spacing: Sequence[float]) -> Labels:
    """A label map from an array.

    Args:
        array: integers or booleans, (z, y, x), or (y, x) with a `spacing` of two.
        spacing: as in `image`.

    Raises:
        UsageError: the array holds no integers or has another number of axes, or a spacing is not a positive number.
    """
    values = np.asarray(array)
    if values.dtype.kind not in "iub":
        raise UsageError(f"label map of type {values.dtype}; expected integers (array.astype(int))")
    sizes, axes = _spacing(spacing), len(spacing)
    if values.ndim != axes:
        raise UsageError(f"label map of shape {values.shape} with a spacing of {axes} numbers; expected {axes} axes")
    values = values[None] if axes == 2 else values
    return Labels(values.astype(np.uint8) if values.dtype.kind == "b" else values, Geometry(sizes))


def label_set(values: LabelValues, regions_class_order: Sequence[int] = ()) -> LabelSet:
    """What the numbers in a label map mean.

    Args:
        values: name -> label, as ``{"background": 0, "liver": 1}``, or -> labels of a region; as in dataset.json.
        regions_class_order: with regions, the label that each is written as.

    Raises:
        DataError: the labels cannot be; every reason is told.
    """
    if isinstance(values, LabelSet):
        return values
    return describe("labels", ["image"], values, cases=1, regions_class_order=regions_class_order).labels


def describe(
    name: str,
    channels: Sequence[str],
    labels: LabelValues,
    *,
    cases: int,
    regions_class_order: Sequence[int] = (),
) -> DatasetDescription:
    """The description of a data set, as its dataset.json would have it.

    Args:
        name: such as `Dataset012_Liver`.
        channels: their names, which decide about normalisation: `CT` wants to be called so.
        labels: see `label_set`.
        cases: how many there are for training.

    Raises:
        DataError: something about it cannot be; every such thing is listed.
    """
    content = dataset_json(channels, labels, cases=cases, regions_class_order=regions_class_order)
    return parse_description(content, name, Path("dataset.json"))


def dataset_json(
    channels: Sequence[str], labels: LabelValues, *, cases: int, regions_class_order: Sequence[int] = ()
) -> dict[str, Any]:
    """The content of dataset.json."""
    values = labels.values if isinstance(labels, LabelSet) else labels
    if isinstance(labels, LabelSet):
        regions_class_order = labels.regions_class_order
    content: dict[str, Any] = {
        "channel_names": {str(number): channel for number, channel in enumerate(channels)},
        "labels": {n: list(v) if isinstance(v, (tuple, list)) else v for n, v in values.items()},
        "numTraining": cases,
        "file_ending": FILE_ENDING,
    }
    return content | ({"regions_class_order": list(regions_class_order)} if regions_class_order else {})


@cache
def usual_project() -> Project:
    """What is installed, no folders, everything in this process."""
    return open_project(workers=0)


def _spacing(spacing: Sequence[float]) -> tuple[float, ...]:
    sizes = tuple(float(size) for size in np.atleast_1d(np.asarray(spacing)))
    if len(sizes) not in {2, 3} or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise UsageError(
            f"spacing {spacing!r}; expected two or three positive numbers, in the order of the array's axes"
        )
    return sizes if len(sizes) == 3 else (ONE_SLICE * max(sizes), *sizes)
