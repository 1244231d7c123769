"""Sizes and angles follow nnU-Net's rules, and regions hold what patches need."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segplug.runtime.randomness import generator
from segplug_builtin.augmentations.drawing import Effects, draw_sample
from segplug_builtin.augmentations.geometry import affine_matrix, geometry_of, needed_region
from segplug_builtin.augmentations.spatial import crop, move


@pytest.mark.parametrize(
    ("patch", "degrees", "dummy", "source"),
    [  # sources are what nnunetv2 2.8.1 computes
        ((128, 128, 128), 30, False, (205, 205, 205)),
        ((40, 56, 40), 30, False, (73, 80, 64)),
        ((24, 30, 28), 30, False, (42, 47, 42)),
        ((6, 40, 44), 180, True, (6, 51, 51)),
        ((16, 320, 320), 180, True, (16, 376, 376)),
        ((20, 60, 60), 30, False, (55, 96, 72)),
        ((512, 512), 180, False, (602, 602)),
        ((50, 40), 180, False, (58, 58)),
        ((320, 96), 15, False, (392, 112)),
    ],
)
def test_nnunets_choice(patch: tuple[int, ...], degrees: float, dummy: bool, source: tuple[int, ...]) -> None:
    geometry = geometry_of(patch)
    assert geometry.rotation == pytest.approx(math.radians(degrees))
    assert (geometry.dummy_2d, geometry.source_size) == (dummy, source)
    assert geometry.mirror_axes == tuple(range(len(patch)))
    assert geometry.turned_axes == (2 if dummy else len(patch))


def test_turns_about_each_axis() -> None:
    quarter = math.pi / 2
    assert np.allclose(affine_matrix([quarter, 0, 0], 1) @ [0, 1, 0], [0, 0, 1])
    assert np.allclose(affine_matrix([0, quarter, 0], 1) @ [0, 0, 1], [1, 0, 0])
    assert np.allclose(affine_matrix([0, 0, quarter], 1) @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(affine_matrix([quarter], 1) @ [1, 0], [0, 1])
    angles = [0.3, -0.2, 0.1]
    about = [affine_matrix([angle if i == axis else 0 for i in range(3)], 1) for axis, angle in enumerate(angles)]
    assert np.allclose(affine_matrix(angles, 1.3), 1.3 * about[2] @ about[1] @ about[0])


@given(st.lists(st.integers(3, 90), min_size=2, max_size=3), st.integers(0, 9999))
def test_needed_regions_hold_the_corners(patch: list[int], seed: int) -> None:
    geometry = geometry_of(patch)
    drawn = draw_sample(generator(seed), geometry, 1, (), Effects(rotation=0.7, scaling=0.7))
    plane = geometry.turned_axes
    assert drawn["needed"][:-plane] == geometry.patch_size[:-plane]
    if "affine" not in drawn:
        assert drawn["needed"] == geometry.patch_size
        return
    needed, source = np.array(drawn["needed"][-plane:]), np.array(geometry.source_size[-plane:])
    assert needed.tolist() == list(needed_region(patch[-plane:], source.tolist(), drawn["affine"]))
    assert (needed <= source).all()
    signs = np.array(np.meshgrid(*[[-1, 1]] * plane)).reshape(plane, -1)
    corners = drawn["affine"] @ (signs * (np.array(patch[-plane:])[:, None] - 1) / 2) + (source[:, None] - 1) / 2
    first = source // 2 - needed // 2
    whole = needed == source
    assert (whole | (np.floor(corners.min(1)) >= first)).all()
    assert (whole | (np.floor(corners.max(1)) + 1 <= first + needed - 1)).all()


@settings(max_examples=30)
@given(st.lists(st.integers(4, 26), min_size=2, max_size=3), st.integers(0, 9999))
def test_the_needed_region_gives_what_the_whole_source_gives(patch: list[int], seed: int) -> None:
    geometry = geometry_of(patch)
    random = generator(seed)
    drawn = draw_sample(random, geometry, 2, (), Effects(rotation=0.7, scaling=0.7))
    data = torch.from_numpy(random.normal(size=(1, 2, *geometry.source_size)).astype(np.float32))
    maps = torch.from_numpy(random.integers(-1, 3, size=(1, 1, *geometry.source_size)).astype(np.int16))
    whole = move(data, maps, [drawn], geometry)
    part = move(*(crop(each, drawn["needed"]) for each in (data, maps)), [drawn], geometry)
    assert torch.allclose(whole[0], part[0], atol=1e-4)
    assert (whole[1] != part[1]).float().mean() < 0.01  # ties between noise labels, decided by rounding
    assert whole[0].shape == (1, 2, *patch)
