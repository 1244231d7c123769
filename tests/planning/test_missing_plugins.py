"""Plans that were made with a plugin that is not installed here: what to install is said before anything is begun."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segplug.errors import PluginError
from segplug.kernel import Kernel
from segplug.model import ComponentRef, Plan
from segplug.runtime.plan_codec import write_plan
from segplug.runtime.plan_components import require_installed
from segplug.runtime.project import Project
from segplug.stages import fingerprint as fingerprint_module
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.preprocess import preprocess
from segplug.stages.train import check_training

ALL = ("readers", "normalizers", "resamplers", "architectures")
FROM = {"plugin": "elsewhere", "distribution": "segplug-elsewhere", "version": "2.1"}


@pytest.fixture
def foreign(project: Project, phantom: str, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan whose 3D network and 2D normaliser come from a plugin that is not there."""
    monkeypatch.setattr(fingerprint_module, "TOTAL_DRAWS", 1e5)
    fingerprint(project, phantom)
    made = plan(project, phantom)
    flat, full = made.configurations["2d"], made.configurations["3d_fullres"]
    changed = replace(
        made,
        configurations={
            "2d": replace(flat, normalization=(ComponentRef("strange_norm"),) * len(flat.normalization)),
            "3d_fullres": replace(full, architecture=ComponentRef("strange_net")),
        },
        provenance=(
            *made.provenance,
            {"kind": "architectures", "name": "strange_net", **FROM},
            {"kind": "normalizers", "name": "strange_norm", **FROM},
        ),
    )
    write_plan(project.workspace.plans_file(phantom, made.plans_name), changed)
    return changed


def test_what_is_needed_is_named_with_its_distribution(foreign: Plan) -> None:
    registry = Kernel(discover=False).registry
    with pytest.raises(
        PluginError, match=r"'strange_net' was provided by .*pip install segplug-elsewhere==2\.1"
    ) as told:
        require_installed(registry, foreign, ["3d_fullres"], ALL)
    assert "strange_norm" not in str(told.value)
    with pytest.raises(PluginError, match=r"'strange_norm'.*pip install segplug-elsewhere==2\.1"):
        require_installed(registry, foreign, ["2d"], ALL)


def test_what_is_not_needed_is_not_asked_for(foreign: Plan) -> None:
    registry = Kernel(discover=False).registry
    require_installed(registry, foreign, ["3d_fullres"], ("readers", "normalizers", "resamplers"))
    require_installed(registry, foreign, [], ALL)
    # what no record knows is told where it is used
    require_installed(registry, replace(foreign, provenance=()), ["3d_fullres"], ALL)


def test_training_and_preprocessing_say_so(project: Project, phantom: str, foreign: Plan) -> None:
    with pytest.raises(PluginError, match=r"pip install segplug-elsewhere==2\.1"):
        check_training(project, phantom, "3d_fullres", 0)
    with pytest.raises(PluginError, match=r"pip install segplug-elsewhere==2\.1"):
        preprocess(project, phantom, configurations=["2d"])
