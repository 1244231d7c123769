"""What is drawn has nnU-Net's frequencies and ranges.

Each statistical test is at a level of 1e-4 on fixed seeds: it cannot fail by chance from one run to the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, kstest, uniform

from segplug.runtime.randomness import generator
from segplug_builtin.augmentations.drawing import Effects, draw_sample
from segplug_builtin.augmentations.geometry import geometry_of

SAMPLES = 12_000
LEVEL = 1e-4


def draw(patch: tuple[int, ...], channels: int = 2, samples: int = SAMPLES) -> list[dict[str, Any]]:
    geometry = geometry_of(patch)
    random = generator(99, *patch)
    return [draw_sample(random, geometry, channels, geometry.mirror_axes, Effects()) for _ in range(samples)]


@pytest.fixture(scope="module")
def drawn() -> list[dict[str, Any]]:
    return draw((24, 24, 24))


def happens(count: int, trials: int, probability: float) -> bool:
    return binomtest(count, trials, probability).pvalue > LEVEL


def is_uniform(values: NDArray[Any] | list[float], low: float, high: float) -> bool:
    return len(values) > 200 and kstest(values, uniform(low, high - low).cdf).pvalue > LEVEL


def is_around_one(values: NDArray[np.float64], low: float, high: float) -> bool:
    below = values[values < 1]
    half = happens(len(below), len(values), 0.5)
    return half and is_uniform(below, low, 1) and is_uniform(values[values >= 1], 1, high)


@pytest.mark.parametrize(
    ("name", "probability"),
    [
        ("affine", 1 - 0.8 * 0.8),
        ("noise", 0.1),
        ("blur", 0.2 * (1 - 0.5**2)),  # of two channels, at least one
        ("brightness", 0.15),
        ("contrast", 0.15),
        ("low_resolution", 0.25 * (1 - 0.5**2)),
        ("inverted_gamma", 0.1),
        ("gamma", 0.3),
        ("mirror", 1 - 0.5**3),
    ],
)
def test_how_often(drawn: list[dict[str, Any]], name: str, probability: float) -> None:
    assert happens(sum(name in each for each in drawn), SAMPLES, probability)


def test_effects_are_independent(drawn: list[dict[str, Any]]) -> None:
    names = ["affine", "noise", "blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma"]
    present = np.array([[name in each for name in names] for each in drawn], float)
    correlation = np.corrcoef(present.T) - np.eye(len(names))
    assert np.abs(correlation).max() < 5 / SAMPLES**0.5


def test_rotation_and_scale_in_3d(drawn: list[dict[str, Any]]) -> None:
    matrices = [each["affine"] for each in drawn if "affine" in each]
    scales = np.array([np.cbrt(np.linalg.det(matrix)) for matrix in matrices])
    turned = np.array([np.count_nonzero(np.abs(m - np.diag(np.diag(m))) > 1e-12) > 0 for m in matrices])
    scaled = np.abs(scales - 1) > 1e-9
    assert happens(int(turned.sum()), SAMPLES, 0.2)
    assert happens(int(scaled.sum()), SAMPLES, 0.2)
    assert happens(int((scaled & turned).sum()), SAMPLES, 0.04)
    assert is_uniform(scales[scaled], 0.7, 1.4)
    for matrix, scale, turn in zip(matrices, scales, turned, strict=True):
        if turn:  # R = Rz Ry Rx: the angles can be read from it
            r = matrix / scale
            assert np.allclose(r @ r.T, np.eye(3))
    turns = [m / s for m, s, t in zip(matrices, scales, turned, strict=True) if t]
    limit = np.radians(30)
    assert is_uniform([np.arctan2(r[2, 1], r[2, 2]) for r in turns], -limit, limit)
    assert is_uniform([-np.arcsin(r[2, 0]) for r in turns], -limit, limit)
    assert is_uniform([np.arctan2(r[1, 0], r[0, 0]) for r in turns], -limit, limit)


@pytest.mark.parametrize(("patch", "degrees"), [((24, 24), 180), ((40, 20), 15), ((6, 24, 24), 180)])
def test_rotation_in_the_plane(patch: tuple[int, ...], degrees: float) -> None:
    matrices = [each["affine"] for each in draw(patch, 1, 5000) if "affine" in each]
    assert all(matrix.shape == (2, 2) for matrix in matrices)
    angles = np.array([np.degrees(np.arctan2(m[1, 0], m[0, 0])) for m in matrices])
    assert is_uniform(angles[angles != 0], -degrees, degrees)


def test_ranges(drawn: list[dict[str, Any]]) -> None:
    def values(name: str) -> NDArray[np.float64]:
        return np.concatenate([np.ravel(each[name]) for each in drawn if name in each])

    assert is_uniform([each["noise"][0] for each in drawn if "noise" in each], 0, 0.1)
    assert len({each["noise"][1] for each in drawn if "noise" in each}) == sum("noise" in each for each in drawn)
    assert is_around_one(values("brightness"), 0.75, 1.25)
    assert is_around_one(values("contrast"), 0.75, 1.25)
    assert is_around_one(values("inverted_gamma"), 0.7, 1.5)
    assert is_around_one(values("gamma"), 0.7, 1.5)
    sigmas = np.concatenate([each["blur"] for each in drawn if "blur" in each])
    chosen = sigmas[:, 0] > 0
    assert ((sigmas > 0) == chosen[:, None]).all()  # a channel is blurred along all axes, or not at all
    assert is_uniform(sigmas[chosen].ravel(), 0.5, 1)
    assert np.abs(np.corrcoef(sigmas[chosen].T) - np.eye(3)).max() < 0.1  # each axis by its own width
    zooms = values("low_resolution")
    assert is_uniform(zooms[zooms != 1], 0.5, 1)
    # given that one of two channels is chosen, both are in a third
    both = [bool((each["low_resolution"] != 1).all()) for each in drawn if "low_resolution" in each]
    assert happens(sum(both), len(both), 1 / 3)


def test_mirrors(drawn: list[dict[str, Any]]) -> None:
    axes = np.array([each.get("mirror", (False,) * 3) for each in drawn])
    assert all(happens(int(count), SAMPLES, 0.5) for count in axes.sum(0))
    geometry = geometry_of((24, 24, 24))
    random = generator(3)
    some = [draw_sample(random, geometry, 1, (1,), Effects()).get("mirror", (False,) * 3) for _ in range(200)]
    assert set(some) == {(False, False, False), (False, True, False)}
