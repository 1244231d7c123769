"""How far apart two images are said to lie."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplug.errors import DataError
from segplug.model import Geometry
from segplug.runtime.findings import Finding, raise_errors
from segplug.runtime.geometry import differences, displacement

SHAPE = (10, 20, 30)
IDENTITY = tuple(np.eye(3).ravel())
HERE = Geometry((3.0, 2.0, 1.5), (10.0, -20.0, 30.0), IDENTITY)


@given(shift=st.tuples(*[st.floats(-50, 50)] * 3))
def test_a_shift_is_its_length_in_the_smallest_voxel(shift: tuple[float, float, float]) -> None:
    there = Geometry(HERE.spacing, tuple(np.add(HERE.origin, shift)), IDENTITY)
    assert displacement(there, HERE, SHAPE) == pytest.approx(math.hypot(*shift) / 1.5, abs=1e-9)


def test_a_turn_moves_the_far_corner() -> None:
    angle = 0.01
    turned = (math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle), 0, 0, 0, 1)
    there = Geometry(HERE.spacing, HERE.origin, turned)
    reach = math.hypot(29 * 1.5, 19 * 2.0)
    assert displacement(there, HERE, SHAPE) == pytest.approx(2 * math.sin(angle / 2) * reach / 1.5)
    (difference,) = differences(there, SHAPE, HERE, SHAPE)
    assert (difference.what, difference.aligned) == ("direction", False)


def test_formats_without_a_place_differ_in_shape_and_spacing_alone() -> None:
    one, other = Geometry((1.0, 1.0, 1.0)), Geometry((1.0, 1.0, 2.0))
    assert displacement(one, other, SHAPE) == 0
    assert [d.what for d in differences(one, (1, 2, 3), other, (1, 2, 4))] == ["shape", "spacing"]


@pytest.mark.parametrize(("shift", "aligned"), [(1e-4, None), (0.05, True), (0.2, False)])
def test_rounding_notice_and_error(shift: float, aligned: bool | None) -> None:
    there = Geometry(HERE.spacing, (10.0 + shift * 1.5, -20.0, 30.0), IDENTITY)
    assert [d.aligned for d in differences(there, SHAPE, HERE, SHAPE)] == ([] if aligned is None else [aligned])


def test_headers_without_numbers_are_apart() -> None:
    nowhere = Geometry(HERE.spacing, (math.nan,) * 3, IDENTITY)
    assert displacement(nowhere, HERE, SHAPE) == math.inf
    assert [d.what for d in differences(nowhere, SHAPE, HERE, SHAPE)] == ["origin"]


def test_findings_are_raised_in_one_error() -> None:
    error = Finding("kind", "case", None, "this\nand that", "nothing", "Mend it")
    warning = Finding("kind", "case", None, "x", "y", "z", "warning")
    assert str(error) == "error: case: kind: found this\\nand that; expected nothing. Mend it"
    raise_errors([warning], "data set")
    with pytest.raises(DataError, match=r"^data set: case: kind: found this"):
        raise_errors([error, warning], "data set")
    with pytest.raises(DataError, match="2 problems") as caught:
        raise_errors([error, warning, error], "data set")
    assert len(str(caught.value).splitlines()) == 3
