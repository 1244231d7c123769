"""A training goes on with the settings that the user has changed, and with all that it had beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from segplug.errors import UsageError
from segplug.runtime.checkpoint import read_checkpoint
from segplug.stages.train import train
from segplug_builtin.optimizers import adamw, sgd
from segplug_builtin.trainers.optimizer_state import restore

NAME, PLANS = "Dataset601_Phantom", "tinyPlans"
ANEW = "the optimiser begins anew"


def trained(make_project, before: list[str], after: list[str]):
    """The groups of the optimiser after two epochs and a third one with other settings, and the log of the latter."""
    project = make_project()
    train(project, NAME, "3d_fullres", 0, plans_name=PLANS, epochs=2, overrides=before)
    fold = train(project, NAME, "3d_fullres", 0, plans_name=PLANS, epochs=3, overrides=after, continue_=True)
    state = read_checkpoint(fold.checkpoint()).state["optimizer_state"]
    log = max(fold.folder.glob("training_log_*.txt")).read_text()
    return state, log


SGD, ADAM, SLOW = "trainer.optimizer=sgd", "trainer.optimizer=adam", "trainer.lr_factors.encoder"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], ["trainer.weight_decay=0"], [{"weight_decay": 0}]),
        ([SGD], ["trainer.optimizer.momentum=0.5", "trainer.optimizer.nesterov=false"], [{"momentum": 0.5}]),
        ([f"{SLOW}=0.1"], [f"{SLOW}=0.01"], [{"lr_factor": 0.01}, {"lr_factor": 1}]),
        ([ADAM], ["trainer.optimizer=adamw", "trainer.optimizer.beta1=0.8"], [{"betas": (0.8, 0.999)}]),
    ],
)
def test_the_changed_setting_counts(make_project, before, after, expected):
    state, log = trained(make_project, before, after)
    assert len(state["param_groups"]) == len(expected)
    for group, settings in zip(state["param_groups"], expected, strict=True):
        assert {name: group[name] for name in settings} == settings
    assert ANEW not in log


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([SGD], ["trainer.optimizer=adamw"]),
        ([ADAM], [SGD]),
        (["trainer.freeze=encoder"], ["trainer.freeze="]),
        (["trainer.freeze=encoder.stages.0"], ["trainer.freeze=encoder.stages.1"]),
        ([], [f"{SLOW}=0.1"]),
        ([ADAM], ["trainer.optimizer.amsgrad=true"]),
    ],
)
def test_a_state_of_something_else_is_left(make_project, before, after):
    state, log = trained(make_project, before, after)
    assert ANEW in log
    places = [place for group in state["param_groups"] for place in group["params"]]
    assert len(state["state"]) == len(places) - 2  # of all but the coarsest output, which the loss leaves out


def test_an_unchanged_optimiser_is_taken_up_whole() -> None:
    weights = [nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(4))]
    other = [nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(4))]

    def build(parameters):
        return sgd(parameters, lr=0.1, weight_decay=0.0)

    then, now = build(weights), build(other)
    for weight in weights:
        weight.grad = torch.full_like(weight, 0.5)
    then.step()
    assert restore(now, then.state_dict(), build)
    for weight, twin in zip(weights, other, strict=True):
        assert torch.equal(now.state[twin]["momentum_buffer"], then.state[weight]["momentum_buffer"])
    before = now.state_dict()
    assert not restore(now, adamw(weights, lr=0.1, weight_decay=0.0).state_dict() | {"param_groups": []}, build)
    assert now.state_dict()["state"].keys() == before["state"].keys()


def test_probabilities_of_a_finished_fold(make_project):
    project = make_project()
    fold = train(project, NAME, "3d_fullres", 0, plans_name=PLANS, epochs=1)
    weights = fold.checkpoint().read_bytes()
    assert not list(fold.validation_folder.glob("*.npz"))
    train(project, NAME, "3d_fullres", 0, plans_name=PLANS, epochs=1, continue_=True, save_probabilities=True)
    cases = {file.name.removesuffix(".nii.gz") for file in fold.validation_folder.glob("*.nii.gz")}
    assert cases
    assert {file.stem for file in fold.validation_folder.glob("*.npz")} == cases
    assert fold.checkpoint().read_bytes() == weights


def test_weights_that_begin_at_random_are_not_frozen(make_project, tmp_path: Path):
    project = make_project()
    fold = train(project, NAME, "3d_fullres", 0, plans_name=PLANS, epochs=1)
    content = torch.load(fold.checkpoint(), weights_only=True)
    first = "encoder.stages.0.0.convs.0.conv.weight"
    for name in [n for n, w in content["network_weights"].items() if n.endswith("stages.0.0.convs.0.conv.weight")]:
        if name.startswith("encoder"):
            content["network_weights"][name] = content["network_weights"][name].repeat(1, 4, 1, 1, 1)
    other = tmp_path / "checkpoint_final.pth"
    torch.save(content, other)

    def begin(frozen: str):
        settings = [f"trainer.freeze={frozen}"]
        return train(project, NAME, "3d_fullres", 1, plans_name=PLANS, epochs=1, overrides=settings, pretrained=other)

    with pytest.raises(UsageError, match=rf"trainer\.freeze: {first} \(made for 4 channels, not 1\).*at random"):
        begin("encoder")
    assert not (fold.model_folder / "fold_1").exists()
    with pytest.warns(UserWarning, match="begins anew"):
        begin("encoder.stages.1")


def test_folds_of_another_patch_size_are_told_of(make_project):
    project = make_project()
    train(project, NAME, "3d_fullres", 0, plans_name=PLANS, epochs=1)
    smaller = ["trainer.patch_size=[8, 16, 16]"]
    with pytest.warns(UserWarning, match=r"fold_0 were trained with patch size \(16, 16, 16\).*not \(8, 16, 16\)"):
        train(project, NAME, "3d_fullres", 1, plans_name=PLANS, epochs=1, overrides=smaller)
    train(project, NAME, "3d_fullres", 2, plans_name=PLANS, epochs=1, overrides=smaller)  # told once
