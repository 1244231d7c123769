"""What a stranger's components cannot do is told in one line before the first epoch."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from segplug import Component, hookimpl
from segplug.errors import PluginError
from segplug.runtime import network_trial
from segplug.stages.train import check_training, train
from segplug_builtin.readers import read_simpleitk

NAME, PLANS = "Dataset601_Phantom", "tinyPlans"


class Network(torch.nn.Module):
    """One convolution; `what` is wrong with it."""

    def __init__(self, channels, classes, what=""):
        super().__init__()
        self.layer = torch.nn.Conv3d(channels, classes, 3, padding=0 if what == "smaller" else 1)
        self.norm = torch.nn.BatchNorm3d(classes)
        self.dropout = torch.nn.Dropout()
        self.what = what

    def forward(self, x):
        if self.what == "fails":
            raise IndexError("out of range")
        logits = self.dropout(self.norm(self.layer(x)))
        return {"dict": {"logits": logits}, "list": [logits]}.get(self.what, logits)


def build(input_channels, output_channels, *, deep_supervision, what=""):
    if what == "unbuilt":
        raise ValueError("these options do not go together")
    return Network(input_channels, output_channels + (what == "classes"), what)


class Plugin:
    @hookimpl
    def segplug_architectures(self):
        yield Component("strange", build, "a convolution")

    @hookimpl
    def segplug_readers(self):
        yield Component("lonely", read_simpleitk, "has no writer")


class Chooses:
    @hookimpl
    def segplug_choose_writer(self, path):
        return "simpleitk" if path.suffix == ".lonely" else None


@pytest.fixture
def project(make_project):
    opened = make_project()
    opened.kernel.register(Plugin(), "plugin")
    return opened


def settings(what):
    return ["trainer.network=strange", f"trainer.network.what={what}"]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("unbuilt", r"'strange' cannot be built from its arguments: ValueError: these options do not go together$"),
        ("fails", r"fails for an input of shape \(1, 1, 16, 16, 16\): IndexError: out of range$"),
        ("smaller", r"logits of shape \(1, 3, 14, 14, 14\) for .*; expected \(1, 3, 16, 16, 16\): \(batch, "),
        ("classes", r"logits of shape \(1, 4, 16, 16, 16\) for .*; expected \(1, 3, 16, 16, 16\): \(batch, "),
        ("dict", "returned a dict; expected logits, a tensor of shape"),
    ],
)
def test_a_network_that_cannot_be_trained(project, what, told):
    with pytest.raises(PluginError, match=rf"architectures: 'strange' .*{told}|architectures: {told}") as raised:
        train(project, NAME, "3d_fullres", 0, plans_name=PLANS, overrides=settings(what))
    assert len(str(raised.value).splitlines()) == 1
    assert not project.workspace.results.exists()


@pytest.mark.parametrize("what", ["", "list"])
def test_the_trial_leaves_network_and_randomness_as_they_were(project, what, monkeypatch):
    seen = []
    original = network_trial.try_network

    def trial(registry, network, *others):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        state = torch.get_rng_state()
        original(registry, network, *others)
        assert network.training
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        seen.append(network)

    monkeypatch.setattr("segplug.runtime.beginning.try_network", trial)
    check_training(project, NAME, "3d_fullres", 0, plans_name=PLANS, overrides=settings(what))
    assert len(seen) == 1


def test_a_reader_without_a_writer(make_project, tmp_path, prepared, monkeypatch):
    shutil.copytree(prepared, tmp_path / "copy")
    folder = tmp_path / "copy" / "preprocessed" / NAME
    for file, changes in (
        (folder / f"{PLANS}.json", {"image_reader_writer": "lonely"}),
        (folder / "dataset.json", {"file_ending": ".lonely"}),
    ):
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    monkeypatch.setattr("segplug.runtime.fold_work.require_cases", lambda *_: None)  # not to preprocess them again
    project = make_project(data=tmp_path / "copy")
    project.kernel.register(Plugin(), "plugin")
    with pytest.raises(PluginError, match=r"no writer for files ending in \.lonely: reader 'lonely' .*choose_writer"):
        train(project, NAME, "3d_fullres", 0, plans_name=PLANS)
    assert not project.workspace.results.exists()
    project.kernel.register(Chooses(), "chooses")
    check_training(project, NAME, "3d_fullres", 0, plans_name=PLANS)
