"""Each kind of phantom is planned as its name says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segplug.model import Plan
from segplug.runtime.project import open_project
from segplug.stages import fingerprint as module
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.testing import KINDS, make_case

NAME = "Dataset601_Kind"


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    """The plan of each kind. Of intensities few are drawn: they decide nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TOTAL_DRAWS", 1e4)
        return {kind: planned(kind, tmp_path_factory.mktemp("kind")) for kind in KINDS}


def planned(kind: str, folder: Path) -> Plan:
    KINDS[kind].write(folder / "raw" / NAME)
    with open_project(folder / "raw", folder / "preprocessed", workers=0) as project:
        fingerprint(project, NAME)
        return plan(project, NAME, memory_gb=KINDS[kind].memory_gb)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_its_organs(kind: str) -> None:
    look = KINDS[kind].look
    for number in range(KINDS[kind].cases):
        organs = set(np.unique(make_case(look, number=number)[1]).tolist()) - {0, look.classes + 1}
        assert organs == (set() if number in look.empty else set(range(1, look.classes + 1)))


def test_names_hold(plans: dict[str, Plan]) -> None:
    assert set(plans["CT with cascade"].configurations) == {"2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"}
    assert {kind for kind, plan in plans.items() if set(plan.configurations) == {"2d"}} == {"2D", "single slice"}


@pytest.mark.parametrize(("kind", "order"), [("second", (1, 0, 2)), ("last", (2, 0, 1)), ("first", (0, 1, 2))])
def test_the_coarse_axis_comes_first(kind: str, order: tuple[int, ...], plans: dict[str, Plan]) -> None:
    made = plans[f"coarse {kind} axis"]
    assert made.transpose_forward == order
    full = made.configurations["3d_fullres"]
    assert full.spacing[0] > 3 * max(full.spacing[1:])
