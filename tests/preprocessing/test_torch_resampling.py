"""Resampling by torch, and none at all."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplug import ComponentRef
from segplug.errors import DataError
from segplug.kernel import Kernel
from segplug.protocols import SeparableResampler
from segplug_builtin.resamplers import no_resampling, separable, separate_axis
from segplug_builtin.torch_resampling import torch_linear

REGISTRY = Kernel(discover=False).registry
SPACINGS = [(1, 1, 1), (5, 1, 1), (1, 1, 7.0), (1, 8, 1), (4, 4, 1)]
sizes = st.tuples(*[st.integers(1, 12)] * 3)


@given(sizes, sizes, st.sampled_from(SPACINGS), st.sampled_from([None, True, False]), st.integers(0, 99))
def test_images_are_linear_splines(old: Any, new: Any, spacing: Any, force: bool | None, seed: int) -> None:
    array = np.random.default_rng(seed).standard_normal((2, *old)).astype(np.float32)
    alone = separate_axis(spacing, (1, 1, 1), force)
    if alone is not None:  # which neighbour is nearest of two is another matter
        new = tuple(old[axis] if axis == alone else n for axis, n in enumerate(new))
    found = torch_linear(array, new, spacing, (1, 1, 1), force_separate_z=force)
    expected = separable(array, new, spacing, (1, 1, 1), order=1, force_separate_z=force)
    assert found.dtype == np.float32
    assert found.shape == (2, *new)
    assert np.abs(found - expected).max() < 1e-5


@given(sizes, sizes, st.sampled_from(SPACINGS), st.sampled_from([None, True, False]), st.booleans(), st.integers(0, 99))
def test_labels_win_by_their_indicators(
    old: Any, new: Any, spacing: Any, force: bool | None, majority: bool, seed: int
) -> None:
    labels = np.random.default_rng(seed).choice([-1, 0, 3, 300], (1, *old)).astype(np.int16)
    options = {"is_seg": True, "force_separate_z": force, "memefficient_seg_resampling": majority}
    found = torch_linear(labels, new, spacing, (1, 1, 1), **options)
    assert found.dtype == np.int16
    assert found.shape == (1, *new)
    assert set(np.unique(found)) <= {-1, 0, 3, 300}
    if separate_axis(spacing, (1, 1, 1), force) is None:
        shares = {
            v: separable((labels == v).astype(np.float32), new, spacing, (1, 1, 1), order=1) for v in (-1, 0, 3, 300)
        }
        most = np.max(list(shares.values()), axis=0)
        of_winner = np.select([found == v for v in shares], list(shares.values()))
        if majority and old != new:
            assert (of_winner[most > 0.5 + 1e-6] > 0.5 - 1e-6).all()
            assert (found[most < 0.5 - 1e-6] == 0).all()
        else:
            assert (of_winner >= most - 1e-3).all()  # half precision


def test_a_tie_goes_to_the_smaller_label() -> None:
    """To the nearest voxel's in the default resampler: the difference that makes labels differ between the two."""
    tied = np.array([[[[2, 1]]]], np.int16)
    assert torch_linear(tied, (1, 1, 3), (1,) * 3, (1,) * 3, is_seg=True).tolist() == [[[[2, 1, 1]]]]
    assert torch_linear(-tied, (1, 1, 3), (1,) * 3, (1,) * 3, is_seg=True).tolist() == [[[[-2, -2, -1]]]]
    majority = {"is_seg": True, "memefficient_seg_resampling": True}
    assert torch_linear(tied, (1, 1, 3), (1,) * 3, (1,) * 3, **majority).tolist() == [[[[2, 0, 1]]]]


@pytest.mark.parametrize("options", [{}, {"mode": "nearest"}, {"aniso_axis_mode": "linear"}, {"mode": "area"}])
@pytest.mark.parametrize("spacing", [(5, 1, 1), (1, 1, 1)])
def test_axis_matrices_do_what_the_call_does(options: dict[str, Any], spacing: Any) -> None:
    assert isinstance(REGISTRY.build("resamplers", "torch_linear"), SeparableResampler)
    old, new = (4, 9, 8), (7, 9, 13)
    resample = REGISTRY.build("resamplers", ComponentRef("resample_torch_fornnunet", {"is_seg": False, **options}))
    matrices = torch_linear.axis_matrices(old, new, spacing, (1, 1, 1), is_seg=False, **options)
    assert matrices is not None
    assert [None if m is None else (m.shape, m.dtype) for m in matrices] == [((7, 4), "f4"), None, ((13, 8), "f4")]
    array = np.random.default_rng(0).standard_normal((2, *old)).astype(np.float32)
    by_hand = np.einsum("zi,xk,cijk->czjx", matrices[0], matrices[2], array)
    assert np.abs(by_hand - resample(array, new, spacing, (1, 1, 1))).max() < 1e-6
    assert torch_linear.axis_matrices(old, new, spacing, (1, 1, 1), is_seg=True) is None
    assert torch_linear.axis_matrices(old, new, (5, 1, 1), (1, 1, 1), mode="bicubic") is None


def test_none_leaves_images_and_labels_alone() -> None:
    array = np.zeros((1, 3, 4, 5), np.float32)
    resample = REGISTRY.build("resamplers", "no_resampling_hack")
    assert resample is no_resampling
    assert resample(array, (6, 8, 10), (1,) * 3, (2,) * 3) is array
    assert no_resampling.axis_matrices((3, 4, 5), (3, 4, 5), (1,) * 3, (2,) * 3) == [None] * 3
    with pytest.raises(DataError, match=r"\(3, 4, 5\).*resampling_fn_probabilities"):
        no_resampling.axis_matrices((3, 4, 5), (6, 8, 10), (1,) * 3, (2,) * 3)


@pytest.mark.parametrize("resampler", [torch_linear, no_resampling])
def test_they_travel_to_workers_by_name(resampler: Any) -> None:
    assert pickle.loads(pickle.dumps(resampler)) is resampler


def test_what_cannot_be_says_so() -> None:
    with pytest.raises(ValueError, match="3 spatial axes"):
        torch_linear(np.ones((1, 2, 2, 2), np.float32), (3, 2), (1,) * 3, (1,) * 3)


def test_torch_is_imported_by_its_resampler_alone() -> None:
    """Not by the planners that choose it, nor where another resampler works."""
    script = """
import sys
import numpy as np
from segplug.kernel import Kernel
from segplug_builtin.planners import plan_default_torch, plan_resenc_l_none
registry = Kernel(discover=False).registry
for name in registry.names("planners"):
    registry.build("planners", name)
for name in ("separable", "none"):
    registry.build("resamplers", name)(np.zeros((1, 2, 2, 2), np.float32), (3, 3, 3), (1,) * 3, (1,) * 3)
assert "torch" not in sys.modules
registry.build("resamplers", "resample_torch_fornnunet")
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
