"""Patches of real images as a network sees them, for quantisation to find the ranges of values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError, UsageError
from segplug.protocols import Model

if TYPE_CHECKING:
    from segplug import Project

MOST = 32
"""Patches that are taken unless another number is asked for."""


def calibration_patches(project: Project, model: Model, folder: Path, count: int = MOST) -> NDArray[np.float32]:
    """Patches float32 (n, channels, *patch) of preprocessed images, as many of each as possible up to `count` in all.

    They lie evenly over each image, as the tiles of a prediction do; every second one is mirrored along the axes that
    predictions mirror along. The same images give the same patches.

    Args:
        folder: images named CASE_0000.ext.

    Raises:
        UsageError: there are no such images; or the model is a later stage of a cascade.
        DataError: an image cannot be read, or has other channels than the model.
    """
    from segplug import arrays

    if model.configuration.previous_stage:
        raise UsageError(
            f"configuration {model.configuration.name} takes label maps of {model.configuration.previous_stage} too, "
            "which calibration images do not have: int8 is for networks that see images alone"
        )
    reader = project.kernel.registry.build("readers", model.plan.reader)
    cases = _cases(folder, model.dataset.file_ending)
    chosen = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, min(count, len(cases))).round().astype(int))]
    share = -(-count // len(chosen))
    found: list[NDArray[np.float32]] = []
    for files in chosen:
        image = reader(files)
        if len(image.array) != model.dataset.num_channels:
            raise DataError(
                f"{', '.join(map(str, files))}: {len(image.array)} channels; expected {model.dataset.num_channels}: "
                f"{', '.join(model.dataset.channel_names)}"
            )
        data = arrays.preprocess(image, model.plan, model.configuration.name, project=project).data
        found += _patches(data, model.configuration.patch_size, share)
    for number, patch in enumerate(found):
        if number % 2 and model.mirror_axes:
            found[number] = np.flip(patch, tuple(axis + 1 for axis in model.mirror_axes))
    return np.ascontiguousarray(np.stack(found[:count]))


def _cases(folder: Path, ending: str) -> list[list[Path]]:
    """Files of each case, in the order of their names."""
    pattern = re.compile(rf"(.+)_\d{{4}}{re.escape(ending)}", re.DOTALL)
    cases: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = pattern.fullmatch(file.name)
        if match and not file.name.startswith("."):
            cases.setdefault(match[1], []).append(file)
    if not cases:
        raise UsageError(f"--calibration {folder}: no images; expected some named CASE_0000{ending}")
    return list(cases.values())


def _patches(data: NDArray[np.float32], patch_size: Sequence[int], count: int) -> list[NDArray[np.float32]]:
    """`count` patches along the longest diagonal of an image (c, z, y, x), padded with zeros where it is smaller."""
    flat = len(patch_size) == 2
    patch = (1, *patch_size) if flat else tuple(patch_size)
    missing = [max(p - n, 0) for p, n in zip(patch, data.shape[1:], strict=True)]
    data = np.pad(data, [(0, 0), *((m // 2, m - m // 2) for m in missing)])
    room = [n - p for p, n in zip(patch, data.shape[1:], strict=True)]
    starts = {tuple(round(r * (i + 0.5) / count) for r in room) for i in range(count)}
    found = [
        data[(slice(None), *(slice(s, s + p) for s, p in zip(start, patch, strict=True)))] for start in sorted(starts)
    ]
    return [each[:, 0] if flat else each for each in found]
