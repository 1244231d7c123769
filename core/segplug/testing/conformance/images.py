"""Normalizers and resamplers: what happens to images before the network."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import SegplugError
from segplug.model import ChannelStatistics
from segplug.protocols import SeparableResampler
from segplug.testing.conformance.suite import Subject, check, expect, skip

STATISTICS = ChannelStatistics(
    mean=60.0, std=30.0, min=-20.0, max=240.0, median=55.0, percentile_00_5=-5.0, percentile_99_5=200.0
)
SPACING, NEW_SPACING = (3.0, 1.0, 1.0), (1.5, 0.8, 1.2)


def _channel() -> NDArray[np.float32]:
    channel: NDArray[np.float32] = np.random.default_rng(0).normal(50, 40, (6, 9, 8)).astype(np.float32)
    return np.clip(channel, 0, 255)  # as pictures need it


@check("normalizers", "one channel comes back as finite float32 of its shape, the same each time")
def _normalizes(subject: Subject) -> None:
    first, second = subject.build()(_channel(), None, STATISTICS), subject.build()(_channel(), None, STATISTICS)
    expect(first.dtype == np.float32, f"{first.dtype} comes back; expected float32")
    expect(first.shape == (6, 9, 8), f"shape {first.shape} comes back; expected (6, 9, 8)")
    expect(bool(np.isfinite(first).all()), "NaN or infinity comes back from a finite channel")
    expect(np.array_equal(first, second), "the same channel was normalised in two ways")


@check("normalizers", "a constant channel stays finite: there is no division by its standard deviation of 0")
def _survives_constant(subject: Subject) -> None:
    for value in (0.0, 17.0):
        found = subject.build()(np.full((2, 4, 3), value, np.float32), None, STATISTICS)
        expect(bool(np.isfinite(found).all()), f"a channel of {value} everywhere becomes NaN or infinite")


@check("normalizers", "a mask is accepted, and an empty one too")
def _takes_mask(subject: Subject) -> None:
    channel = _channel()
    for mask in (channel > 30, np.zeros(channel.shape, bool)):
        found = subject.build()(channel.copy(), mask, STATISTICS)
        expect(
            found.shape == channel.shape and bool(np.isfinite(found).all()),
            f"with {int(mask.sum())} voxels in the mask",
        )


@check("normalizers", "without statistics it works, or says that it needs them")
def _needs_statistics(subject: Subject) -> None:
    try:
        found = subject.build()(_channel(), None, None)
    except SegplugError:
        return
    except Exception as error:
        raise AssertionError(
            f"{type(error).__name__}: {error}; expected a segplug.errors.DataError that says so"
        ) from error
    expect(found.shape == (6, 9, 8), f"shape {found.shape} comes back; expected (6, 9, 8)")


@check("resamplers", "images come back finite, in the shape wanted, and the array given stays as it was")
def _resamples(subject: Subject) -> None:
    array = np.random.default_rng(0).normal(0, 1, (2, 4, 10, 9)).astype(np.float32)
    before = array.copy()
    for shape in ((8, 12, 7), (4, 5, 9), (1, 10, 9)):
        found = subject.build()(array, shape, SPACING, NEW_SPACING)
        expect(found.shape == (2, *shape), f"from {array.shape[1:]} to {shape}: shape {found.shape[1:]} comes back")
        expect(bool(np.isfinite(found).all()), f"from {array.shape[1:]} to {shape}: NaN or infinity comes back")
    expect(np.array_equal(array, before), "the array given was changed")


@check("resamplers", "an image that has the shape wanted stays as it is, and a constant one stays constant")
def _keeps(subject: Subject) -> None:
    array = np.random.default_rng(0).normal(0, 1, (1, 4, 10, 9)).astype(np.float32)
    found = subject.build()(array, array.shape[1:], SPACING, SPACING)
    expect(bool(np.allclose(found, array, atol=1e-4)), "voxels changed although the shape did not")
    flat = subject.build()(np.full_like(array, 3.0), (7, 6, 11), SPACING, NEW_SPACING)
    expect(bool(np.allclose(flat, 3.0, atol=1e-4)), f"3 everywhere became {flat.min()} to {flat.max()}")


@check("resamplers", "label maps keep their type and get no label that they did not have")
def _keeps_labels(subject: Subject) -> None:
    labels = np.zeros((1, 4, 10, 9), np.int16)
    labels[:, 1:, 2:7, 3:8], labels[:, 2, 5:, :4] = 2, 7
    found = _as_labels(subject, labels, (9, 14, 6))
    expect(found.shape == (1, 9, 14, 6), f"shape {found.shape[1:]} comes back; expected (9, 14, 6)")
    new = set(np.unique(found)) - {0, 2, 7}
    expect(not new, f"labels {sorted(new)} came up; there were 0, 2 and 7")
    expect(np.issubdtype(found.dtype, np.integer), f"{found.dtype} comes back; expected integers")


@check("resamplers", "its matrices per axis, if it has any, do what it does")
def _agrees_with_matrices(subject: Subject) -> None:
    built = subject.build()
    resampler = getattr(built, "func", built)
    if not isinstance(resampler, SeparableResampler):
        skip("it has no `axis_matrices`: export then cannot stream")
    array = np.random.default_rng(0).uniform(0, 1, (1, 8, 10, 9)).astype(np.float32)
    shape = (8, 15, 6)
    matrices = resampler.axis_matrices(array.shape[1:], shape, (1.0, 1.0, 1.0), (1.0, 0.7, 1.5), **subject.ref.options)
    if matrices is None:
        skip("it cannot work separably for a cube")
    made: Any = array
    for axis, matrix in enumerate(matrices, start=1):
        if matrix is not None:
            made = np.moveaxis(np.tensordot(matrix, made, (1, axis)), 0, axis)
    made = made.clip(array.min(), array.max())
    found = built(array, shape, (1.0, 1.0, 1.0), (1.0, 0.7, 1.5))
    difference = float(np.abs(made - found).max())
    expect(difference < 1e-3, f"the matrices' result differs by up to {difference:.2g} from the call's")


def _as_labels(subject: Subject, labels: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    built = subject.build()
    function = getattr(built, "func", built)
    named = "is_seg" in inspect.signature(function).parameters and "is_seg" not in subject.ref.options
    return built(labels, shape, SPACING, NEW_SPACING, **({"is_seg": True} if named else {}))  # type: ignore[no-any-return]
