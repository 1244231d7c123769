"""Linear resampling by torch, as nnU-Net's `resample_torch_fornnunet` does it; and no resampling at all.

Torch computes here too, for what it rounds decides ties between labels. Nothing else of preprocessing imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from segplug_builtin.resamplers import ANISOTROPY, separate_axis

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""What torch calls linear interpolation, by the number of axes."""

PER_AXIS = ("linear", "nearest", "nearest-exact", "area")
"""Modes that work axis by axis with weights from 0 to 1."""

CERTAIN = 1000.0
"""nnU-Net's indicators of labels are 0 and this number, and compared in half precision."""


TORCH = 1 << 29
"""Bytes that importing torch takes."""


class TorchLinear:
    """Resamples (channels, *spatial) as nnU-Net's `resample_torch_fornnunet` does."""

    @torch.no_grad()
    def __call__(
        self,
        array: NDArray[Any],
        new_shape: Sequence[int],
        spacing: Sequence[float],
        new_spacing: Sequence[float],
        *,
        is_seg: bool = False,
        num_threads: int | None = None,
        device: str = "cpu",
        memefficient_seg_resampling: bool = False,
        force_separate_z: bool | None = None,
        separate_z_anisotropy_threshold: float = ANISOTROPY,
        mode: str = "linear",
        aniso_axis_mode: str = "nearest-exact",
    ) -> NDArray[Any]:
        """Bring an array to `new_shape`.

        Args:
            array: (channels, *spatial), float, or integers with `is_seg`.
            new_shape: spatial shape of the result.
            spacing, new_spacing: before and after; they decide whether the coarse axis is resampled on its own.
            is_seg: the values are labels: each label's indicator is interpolated and rounded to half precision, the
                largest wins, the smaller label of those that tie.
            num_threads: taken, because nnU-Net's plans may have it, and ignored: torch has the threads that the number
                of workers leaves it.
            device: where torch computes.
            memefficient_seg_resampling: a label wins where its indicator is more than a half (the largest label of
                several); 0 stands where none is.
            force_separate_z: True or False, whether to resample the coarse axis on its own; None: if it is more than
                `separate_z_anisotropy_threshold` times coarser than the finest, before or else after.
            mode: torch's interpolation within slices when the coarse axis is resampled on its own; `linear` otherwise,
                whatever stands here (nnU-Net's rule).
            aniso_axis_mode: torch's interpolation along an axis resampled on its own.

        Returns:
            float32 (channels, *new_shape), or the integer type of the labels. The array itself if the shape is right.
        """
        shape, new_shape = array.shape[1:], tuple(int(n) for n in new_shape)
        if len(shape) != len(new_shape):
            raise ValueError(f"array of {len(shape)} spatial axes cannot be resampled to shape {new_shape}")
        if shape == new_shape:
            return array
        values = torch.from_numpy(np.ascontiguousarray(array)).to(device)
        how = _Interpolation(is_seg, memefficient_seg_resampling)
        alone = separate_axis(spacing, new_spacing, force_separate_z, separate_z_anisotropy_threshold)
        if alone is None:
            values = how(values, new_shape, "linear")
        else:
            slices = values.movedim(1 + alone, 1)
            in_plane = tuple(n for axis, n in enumerate(new_shape) if axis != alone)
            flat = how(slices.flatten(0, 1), in_plane, mode)
            values = flat.reshape(*slices.shape[:2], *in_plane).movedim(1, 1 + alone)
            values = how(values, new_shape, aniso_axis_mode)
        return values.cpu().numpy().astype(array.dtype if is_seg else np.float32, copy=False)

    def axis_matrices(
        self,
        shape: Sequence[int],
        new_shape: Sequence[int],
        spacing: Sequence[float],
        new_spacing: Sequence[float],
        *,
        is_seg: bool = False,
        force_separate_z: bool | None = None,
        separate_z_anisotropy_threshold: float = ANISOTROPY,
        mode: str = "linear",
        aniso_axis_mode: str = "nearest-exact",
        **_without_effect: Any,
    ) -> list[NDArray[np.float32] | None] | None:
        """The (n_new, n_old) matrix of each axis, None for an axis that stays; None if there are no such matrices."""
        alone = separate_axis(spacing, new_spacing, force_separate_z, separate_z_anisotropy_threshold)
        within = "linear" if alone is None else mode
        if is_seg or not {within, aniso_axis_mode} <= set(PER_AXIS):
            return None
        modes = [aniso_axis_mode if axis == alone else within for axis in range(len(shape))]
        return [
            None if old == new else _matrix(old, new, m) for old, new, m in zip(shape, new_shape, modes, strict=True)
        ]

    def taken(
        self, shape: Sequence[int], new_shape: Sequence[int], *, device: str = "cpu", **_without_effect: Any
    ) -> int:
        """Bytes beside array and result, torch itself included; see `segplug.protocols.SizedResampler`."""
        largest = prod(max(pair) for pair in zip(shape[1:], new_shape, strict=True))
        return TORCH + 4 * 4 * shape[0] * largest  # a copy, two arrays between, and scores of labels in their place

    def __reduce__(self) -> str:
        return "torch_linear"


torch_linear = TorchLinear()


class _Interpolation:
    """Torch's interpolation of (channels, *spatial), of labels by their indicators."""

    def __init__(self, is_seg: bool, by_majority: bool) -> None:
        self._is_seg = is_seg
        self._vote = _majorities if by_majority else _largest

    def __call__(self, values: Tensor, shape: tuple[int, ...], mode: str) -> Tensor:
        if values.shape[1:] == shape:
            return values
        mode = LINEAR[len(shape)] if mode == "linear" else mode
        if self._is_seg and not mode.startswith("nearest"):
            return self._vote(values, shape, mode)
        return functional.interpolate(values[None].float(), shape, mode=mode)[0].to(
            values.dtype if self._is_seg else torch.float32
        )


def _largest(labels: Tensor, shape: tuple[int, ...], mode: str) -> Tensor:
    """The label with the largest indicator, the first of equals."""
    result = labels.new_empty((len(labels), *shape))
    best = torch.full(result.shape, -1.0, dtype=torch.float16, device=labels.device)
    for label in torch.unique(labels):
        score = functional.interpolate((labels[None] == label).float() * CERTAIN, shape, mode=mode)[0].half()
        result = torch.where(score > best, label, result)
        best = torch.maximum(best, score)
    return result


def _majorities(labels: Tensor, shape: tuple[int, ...], mode: str) -> Tensor:
    """The last label whose indicator is more than a half, 0 where there is none."""
    result = labels.new_zeros((len(labels), *shape))
    for label in torch.unique(labels):
        score = functional.interpolate((labels[None] == label).float(), shape, mode=mode)[0]
        result = torch.where(score > 0.5, label, result)
    return result


def _matrix(old: int, new: int, mode: str) -> NDArray[np.float32]:
    """What torch makes of unit vectors: (new, old)."""
    columns: NDArray[np.float32] = functional.interpolate(torch.eye(old)[None], new, mode=mode)[0].numpy()
    return np.ascontiguousarray(columns.T)
