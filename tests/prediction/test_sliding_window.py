"""The sliding window, beside a plain one that keeps whole arrays in double precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segplug.errors import DataError, PluginError
from segplug.runtime.sliding_window import Window, mirrorings, slide, tile_starts, tile_weights

CPU = torch.device("cpu")
CLASSES = 3


def networks(dimensions: int, folds: int) -> list[Callable[[Tensor], Tensor]]:
    """Fast stand-ins whose output depends on the place in the patch and on which side is which."""

    def network(fold: int, x: Tensor) -> Tensor:
        ramp: Any = sum(
            (torch.arange(n) * (axis + fold + 1)).reshape([-1 if a == axis else 1 for a in range(dimensions)])
            for axis, n in enumerate(x.shape[2:])
        )
        return torch.stack([x[:, 0] * ramp, x[:, 1] + ramp, x[:, 0] * x[:, 1] - 0.1 * ramp], 1) / 10

    return [partial(network, fold) for fold in range(folds)]


def collect(data: Tensor, forward: Sequence[Any], window: Window, **options: Any) -> Tensor:
    """All slabs put together; every voxel is written once."""
    result = torch.full((CLASSES, *data.shape[1:]), float("nan"))
    ordered = result.permute(0, *(a + 1 for a in window.order))
    arrived = 0
    for slab in slide(data, forward, window, classes=CLASSES, device=CPU, **options):
        assert slab.start == arrived
        arrived += slab.logits.shape[1]
        ordered[:, slab.start : arrived] = slab.logits
    assert arrived == data.shape[1 + window.axis]
    return result


def expected(data: Tensor, forward: Sequence[Any], window: Window, mirror_axes: Sequence[int]) -> Tensor:
    """nnU-Net's sliding window, written down plainly."""
    pad = [n for pair in reversed(window.padding) for n in pair]
    data = torch.nn.functional.pad(data, pad)
    shape, patch = data.shape[1:], window.patch
    gaussians = [np.exp(-0.5 * ((np.arange(n) - n // 2) / (n / 8)) ** 2) for n in patch]
    weight = torch.from_numpy(np.einsum("i,j,k->ijk", *gaussians))
    total, weights = torch.zeros((CLASSES, *shape), dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    steps = [
        list(range(shape[0])) if window.flat and a == 0 else tile_starts(shape[a], patch[a], window.step)
        for a in range(3)
    ]
    for corner in product(*steps):
        box = (slice(None), *(slice(c, c + p) for c, p in zip(corner, patch, strict=True)))
        x = data[box][None, :, 0] if window.flat else data[box][None]
        outputs = []
        for axes in mirrorings(mirror_axes):
            dims = tuple(a + 2 for a in axes)
            outputs += [network(x.flip(dims)).flip(dims).double() for network in forward]
        logits = torch.stack(outputs).mean(0)[0]
        total[box] += (logits[:, None] if window.flat else logits) * weight
        weights[box[1:]] += weight
    inside = (slice(None), *(slice(p[0], p[0] + n) for p, n in zip(window.padding, window.shape, strict=True)))
    return (total / weights)[inside]


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 11), st.integers(1, 15), st.integers(1, 13)),
    patch=st.one_of(
        st.tuples(st.integers(4, 8), st.integers(5, 9), st.integers(4, 7)),
        st.tuples(st.integers(5, 9), st.integers(4, 7)),
    ),
    step=st.sampled_from((0.5, 1.0, 0.77)),
    mirror=st.sets(st.integers(0, 1)),
    folds=st.integers(1, 2),
    axis=st.sampled_from((None, 0, 1, 2)),
    depth=st.integers(1, 4),
    batch_size=st.integers(1, 3),
)
def test_any_image_patch_and_order(
    shape: tuple[int, ...],
    patch: tuple[int, ...],
    step: float,
    mirror: set[int],
    folds: int,
    axis: int | None,
    depth: int,
    batch_size: int,
) -> None:
    data = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    forward = networks(len(patch), folds)
    window = Window.plan(shape, patch, step)
    if axis is not None:
        window = replace(window, axis=axis, depth=depth)
    found = collect(data, forward, window, mirror_axes=sorted(mirror), batch_size=batch_size)
    torch.testing.assert_close(found.double(), expected(data, forward, window, sorted(mirror)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "patch", "step", "starts"),
    [
        (110, 64, 0.5, [0, 23, 46]),
        (64, 64, 0.5, [0]),
        (65, 64, 0.5, [0, 1]),
        (128, 64, 1.0, [0, 64]),
        (100, 40, 0.5, [0, 20, 40, 60]),
    ],
)
def test_tiles_stand_where_nnunet_puts_them(size: int, patch: int, step: float, starts: list[int]) -> None:
    assert tile_starts(size, patch, step) == starts


@given(size=st.integers(1, 300), patch=st.integers(1, 128), step=st.floats(0.05, 1))
def test_tiles_cover_the_image_and_weights_add_up(size: int, patch: int, step: float) -> None:
    size = max(size, patch)
    starts = tile_starts(size, patch, step)
    assert starts[0] == 0
    assert starts[-1] + patch == size
    assert all(b - a <= max(1, np.ceil(patch * step)) for a, b in pairwise(starts))
    total = np.zeros(size)
    for start, weights in zip(starts, tile_weights(size, patch, starts), strict=True):
        total[start : start + patch] += weights
    np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize("step", [0, -1, 1.5])
def test_impossible_steps(step: float) -> None:
    with pytest.raises(ValueError, match="step size"):
        tile_starts(10, 5, step)


def test_memory_is_that_of_one_patch_along_the_longest_axis() -> None:
    """The sums never span the image, whichever axis is long."""
    for axis in range(3):
        shape = [8, 8, 8]
        shape[axis] = 200
        window = Window.plan(shape, (8, 8, 8), 0.5)
        assert window.axis == axis
        data = torch.zeros(2, *shape)
        thickest = max(
            slab.logits.untyped_storage().nbytes()
            for slab in slide(data, networks(3, 1), window, classes=CLASSES, device=CPU)
        )
        assert thickest == CLASSES * 8**3 * 4


def test_a_2d_network_gets_several_slices_at_once() -> None:
    batches = []

    def forward(x: Tensor) -> Tensor:
        batches.append(len(x))
        return torch.zeros(len(x), CLASSES, *x.shape[2:])

    window = Window.plan((20, 8, 8), (8, 8), 0.5, slices=8)
    collect(torch.zeros(2, 20, 8, 8), [forward], window, batch_size=8)
    assert batches == [8, 8, 4]


def test_a_large_single_slice_is_rolled_over() -> None:
    assert Window.plan((1, 500, 400), (32, 32), 0.5).axis == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 30])
def test_logits_that_are_not_finite_are_an_error(value: float, place: int) -> None:
    def forward(x: Tensor) -> Tensor:
        logits = torch.zeros(1, CLASSES, *x.shape[2:])
        logits[0, 1][x[0, 0] == 1] = value
        return logits

    data = torch.zeros(1, 40, 8, 8)
    data[0, place, 3, 3] = 1
    with pytest.raises(DataError, match="not finite"):
        list(slide(data, [forward], Window((40, 8, 8), (8, 8, 8), 0.5), classes=CLASSES, device=CPU))


@pytest.mark.parametrize("returned", [torch.zeros(1, 2, 8, 8, 8), [torch.zeros(1, CLASSES, 8, 8, 8)], None])
def test_a_network_that_returns_something_else_is_an_error(returned: Any) -> None:
    window = Window((8, 8, 8), (8, 8, 8), 0.5)
    with pytest.raises(PluginError, match=r"expected a tensor of shape \(1, 3, 8, 8, 8\)"):
        list(slide(torch.zeros(1, 8, 8, 8), [lambda _: returned], window, classes=CLASSES, device=CPU))


def test_a_network_may_return_the_same_memory_again() -> None:
    memory = torch.zeros(1, CLASSES, 8, 8, 8)

    def forward(x: Tensor) -> Tensor:
        memory[:] = x
        return memory

    data = torch.randn(1, 8, 8, 8)
    found = collect(data, [forward, forward], Window((8, 8, 8), (8, 8, 8), 0.5), mirror_axes=(0, 1, 2))
    torch.testing.assert_close(found, data.expand(CLASSES, -1, -1, -1), rtol=1e-5, atol=1e-5)


def test_low_precision_outputs_are_summed_in_single_precision() -> None:
    window = Window((12, 8, 8), (8, 8, 8), 0.5)
    found = collect(
        torch.zeros(1, 12, 8, 8), [lambda x: torch.full((1, CLASSES, 8, 8, 8), 0.1, dtype=torch.bfloat16)], window
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.full_like(found, float(torch.tensor(0.1).bfloat16())), rtol=1e-6, atol=0)
