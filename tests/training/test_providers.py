"""A training is continued with the plugins that it began with, or the user says otherwise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from segplug import Component, hookimpl
from segplug.errors import PluginError, UsageError
from segplug.kernel import Kernel
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.project import Project
from segplug.stages.train import train

NAME, PLANS = "Dataset601_Phantom", "tinyPlans"
LOSS = "segplug_builtin.losses:DiceCrossEntropy"


def plugin(kind: str, name: str, place: str, replaces: bool = False) -> object:
    component = Component(name, place, "", replaces=replaces)
    return SimpleNamespace(**{f"segplug_{kind}": hookimpl(lambda: [component])})


def run(make_project, plugins=(), pins=None, **options):
    project = make_project()
    kernel = Kernel(discover=False, pins=pins)
    for name, each in dict(plugins).items():
        kernel.register(each, name)
    with Project(project.workspace, kernel, workers=0) as opened:
        return train(opened, NAME, "3d_fullres", 0, plans_name=PLANS, **options)


MINE = {"strange": plugin("losses", "odd", LOSS)}
BOTH = {**MINE, "rival": plugin("losses", "odd", LOSS)}
REPLACED = {"rival": plugin("losses", "dice_ce", LOSS, replaces=True)}
ODD = ["trainer.loss=odd"]


@pytest.mark.parametrize(
    ("then", "now", "differs"),
    [
        ({"plugins": MINE, "overrides": ODD}, {"plugins": {"rival": BOTH["rival"]}}, "now it is 'rival'"),
        (
            {"plugins": BOTH, "overrides": ODD, "pins": {"losses.odd": "strange:odd"}},
            {"plugins": BOTH, "pins": {"losses.odd": "rival:odd"}},
            "now it is 'rival'",
        ),
        ({}, {"plugins": REPLACED}, "was provided by plugin 'builtin' .* now it is 'rival'"),
    ],
)
def test_another_plugins_component_is_refused_or_accepted(make_project, then, now, differs):
    fold = run(make_project, epochs=1, **then)
    with pytest.raises(PluginError, match=rf"(?s)losses: .*{differs}.*--continue --allow-provider-change.*anew"):
        run(make_project, epochs=2, continue_=True, **now)
    run(make_project, continue_=True, **now)  # finished work is left alone
    run(make_project, epochs=2, continue_=True, allow_provider_change=True, **now)
    recorded = read_checkpoint(fold.checkpoint()).extension["provenance"]
    assert {entry["plugin"] for entry in recorded if entry["kind"] == "losses" and "odd" in entry["name"]} <= {"rival"}
    run(make_project, epochs=3, continue_=True, **now)  # what was accepted is what it is continued with


def test_another_trainer_of_the_name_is_refused(make_project):
    overrides = ["trainer.iterations_per_epoch=1", "trainer.val_iterations_per_epoch=1"]
    place = "segplug_builtin.trainers.nnunet:NNUNetTrainer"
    mine, rival = (plugin("trainers", "odd", place) for _ in range(2))
    run(make_project, {"strange": mine}, trainer="strange:odd", overrides=overrides, epochs=1)
    with pytest.raises(PluginError, match=r"trainers: 'odd' was provided by plugin 'strange'.*now it is 'rival'"):
        run(make_project, {"rival": rival}, trainer="odd", epochs=2, continue_=True)
    with pytest.raises(UsageError, match=r"trainers: 'strange:odd' was .*no component 'strange:odd'.*pip install"):
        run(make_project, trainer="odd", epochs=2, continue_=True)


def test_what_to_install_is_said(make_project):
    run(make_project, MINE, overrides=ODD, epochs=1)
    for allowed in (False, True):
        with pytest.raises(PluginError, match=r"losses: 'odd' was provided by plugin 'strange'.*pip install") as told:
            run(make_project, epochs=2, continue_=True, allow_provider_change=allowed)
        assert "--allow-provider-change" not in str(told.value)
    run(make_project, epochs=2, continue_=True, overrides=["trainer.loss=dice_ce"])  # not needed any more
