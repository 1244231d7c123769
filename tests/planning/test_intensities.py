"""Counted draws give what nnU-Net gets from the drawn values themselves."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segplug.runtime import intensities as module
from segplug.runtime.intensities import (
    NOTHING,
    Intensities,
    channel_statistics,
    draw_intensities,
    merge_intensities,
    percentiles,
)

WANTED = (0.0, 0.5, 25.0, 50.0, 99.5, 100.0)


def values_like(kind: str, size: int, seed: int) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    if kind == "whole":
        return random.integers(-1024, 3000, size).astype(np.float32)
    if kind == "few":
        return random.choice(np.array([-3.5, 0.0, 1e-20, 7.25, 1e9], np.float32), size)
    return random.normal(3, 40, size).astype(np.float32)


def drawn_by_nnunet(channels: list[NDArray[np.float32]], draws: int) -> list[NDArray[np.float32]]:
    """One generator per case, channels in turn, with replacement."""
    random = np.random.RandomState(1234)
    return [random.choice(values, draws, replace=True) for values in channels]


@settings(deadline=None)
@given(
    size=st.integers(1, 3000),
    draws=st.integers(1, 4000),
    kind=st.sampled_from(["whole", "few", "real"]),
    channels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_the_same_values_are_drawn_as_often(size: int, draws: int, kind: str, channels: int, seed: int) -> None:
    images = [values_like(kind, size, seed + number) for number in range(channels)]
    for ours, theirs in zip(draw_intensities(images, draws), drawn_by_nnunet(images, draws), strict=True):
        values, counts = np.unique(theirs, return_counts=True)
        np.testing.assert_array_equal(ours.values, values)
        np.testing.assert_array_equal(ours.counts, counts)
        assert ours.values.dtype == np.float32
        assert ours.total == draws


@pytest.mark.parametrize(("size", "draws"), [(5000, 3_000_001), (1_200_000, 2_200_000), (1_200_000, 300_000)])
def test_chunks_change_nothing(size: int, draws: int) -> None:
    images = [values_like("real", size, 1), values_like("whole", size, 2)]
    for ours, theirs in zip(draw_intensities(images, draws), drawn_by_nnunet(images, draws), strict=True):
        values, counts = np.unique(theirs, return_counts=True)
        assert np.array_equal(ours.values, values)
        assert np.array_equal(ours.counts, counts)


def test_a_case_without_foreground_draws_nothing() -> None:
    empty = np.empty(0, np.float32)
    assert draw_intensities([empty, empty], 10) == [NOTHING, NOTHING]


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=5),
    kind=st.sampled_from(["whole", "few", "real"]),
    seed=st.integers(0, 99),
    single=st.booleans(),
)
def test_percentiles_are_numpys_to_the_last_bit(sizes: list[int], kind: str, seed: int, single: bool) -> None:
    cases = [values_like(kind, size, seed + number) for number, size in enumerate(sizes)]
    everything = np.concatenate(cases) if single else np.concatenate(cases).astype(np.float64)
    counted = [Intensities(v, c.astype(np.int32)) for v, c in (np.unique(x, return_counts=True) for x in cases)]
    merged = merge_intensities(counted)
    assert percentiles(merged, WANTED, single_precision=single) == np.percentile(everything, np.array(WANTED)).tolist()


def test_statistics_are_numpys() -> None:
    images = [values_like("real", 4000, 5)]
    theirs = drawn_by_nnunet(images, 200_000)[0].astype(np.float64)
    found = channel_statistics(draw_intensities(images, 200_000)[0])
    np.testing.assert_allclose([found.mean, found.std], [theirs.mean(), theirs.std()], rtol=1e-12)
    assert (found.min, found.max) == (theirs.min(), theirs.max())
    assert (found.percentile_00_5, found.median, found.percentile_99_5) == tuple(
        np.percentile(theirs.astype(np.float32), np.array((0.5, 50.0, 99.5)))
    )


def test_too_many_distinct_values_are_rounded_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.sort(np.random.default_rng(0).uniform(-1, 1, 300_000).astype(np.float32))
    exact = Intensities(values, np.ones(values.size, np.int32))
    monkeypatch.setattr(module, "MOST_DISTINCT", 50_000)
    rounded = merge_intensities([exact])
    assert rounded.total == exact.total
    assert (rounded.values[0], rounded.values[-1]) == (values[0], values[-1])
    assert all(a < b for a, b in pairwise(rounded.values[:1000]))
    wanted = (0.5, 20.0, 80.0, 99.5)
    np.testing.assert_allclose(percentiles(rounded, wanted), percentiles(exact, wanted), rtol=1e-5)


def test_memory_does_not_grow_with_the_draws() -> None:
    image = values_like("whole", 50_000, 3)
    tracemalloc.start()
    try:
        (drawn,) = draw_intensities([image], 10_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert drawn.total == 10_000_000
    assert peak < 20e6  # the draws themselves would take 80 MB as indices
