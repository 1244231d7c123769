"""What every loss has to do."""

from __future__ import annotations

import pytest

from segplug.testing import BoundCheck, conformance

OPTIONS = {"dice_ce": {"weight_boundary": 0.5}, "cldice": {"iterations": 2}}


@pytest.mark.parametrize(
    "check",
    [each for name in OPTIONS for options in ({}, OPTIONS[name]) for each in conformance("losses", name, options)],
    ids=lambda each: f"{each.subject.ref.name} {dict(each.subject.ref.options)}: {each}",
)
def test_conformance(check: BoundCheck) -> None:
    check()
