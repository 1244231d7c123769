"""Resamplers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


class Resampler(Protocol):
    """A function that brings (channels, *spatial) to another spatial shape.

    The plan's options arrive as keywords: `is_seg`, `order`, `order_z`, `force_separate_z` for nnU-Net's. With
    `is_seg` the array holds labels and the result may hold no others.

    Args:
        array: float32, or integers with `is_seg`.
        new_shape: spatial shape wanted.
        spacing: of the array; `new_spacing` of the result. They decide how to interpolate, not the shape.
    """

    def __call__(
        self, array: NDArray[Any], new_shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
    ) -> NDArray[Any]: ...


@runtime_checkable
class SeparableResampler(Protocol):
    """A resampler that can say what it does per axis; export then streams, slab by slab.

    `axis_matrices` takes the arguments of the call with the old spatial shape in place of the array and returns one
    (n_new, n_old) float32 matrix per axis, None for an axis that stays; or None if it cannot work separably.
    """

    def axis_matrices(
        self,
        shape: Sequence[int],
        new_shape: Sequence[int],
        spacing: Sequence[float],
        new_spacing: Sequence[float],
        **options: Any,
    ) -> list[NDArray[np.float32] | None] | None: ...


@runtime_checkable
class SizedResampler(Protocol):
    """A resampler that tells what it takes, so that a limit of memory can be kept.

    `taken` takes the shape of the array, (channels, *spatial), the new spatial shape and the options of the call, and
    returns bytes: the most it has in memory beside the array and the result, at any spacings.
    """

    def taken(self, shape: Sequence[int], new_shape: Sequence[int], **options: Any) -> int: ...
