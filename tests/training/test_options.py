"""Options of trainings: each does what it says, and with any of them a continued training is the uninterrupted one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from segplug.errors import UsageError
from segplug.kernel import hookimpl
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.trained_model import TrainedModel
from segplug.stages.train import train
from segplug_builtin.trainers.layers import parameter_groups, set_training
from segplug_builtin.trainers.weight_average import WeightAverage

NAME, PLANS = "Dataset601_Phantom", "tinyPlans"
COMBINATIONS = {
    "averaging, accumulation, Adan": [
        "trainer.weight_averaging=0.9",
        "trainer.accumulate=2",
        "trainer.optimizer=adan",
        "trainer.loss=dice_topk",
        "trainer.loss.k=20",
    ],
    "early stopping": ["trainer.patience=2", "trainer.lr=1e-9", "trainer.optimizer=sgd", "trainer.epochs=40"],
    "stronger augmentation, batch norm, averaging": [
        "trainer.augmentation=stronger",
        "trainer.norm=batch",
        "trainer.weight_averaging=0.99",
        "trainer.schedule=cosine",
        "trainer.schedule.warmup_epochs=2",
    ],
    "parts of the network, sampling": [
        "trainer.freeze=encoder.stages.0",
        "trainer.lr_factors.decoder.stages.0=0.5",
        "trainer.probabilistic_oversampling=true",
        "trainer.accumulate=3",
        "trainer.loss=ce",
        "trainer.loss.class_weights=[1, 2, 3]",
        "trainer.optimizer=adam",
        "trainer.augmentation.labels=nearest",
    ],
}


class Interrupter:
    """Stops a training when a checkpoint with so many epochs is on disk."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    @hookimpl
    def segplug_epoch_finished(self, folder: Path, report: Any) -> None:
        if report.epoch == self.epochs:
            raise KeyboardInterrupt


def run(project, **options):
    return train(project, NAME, "3d_fullres", 0, plans_name=PLANS, precision="fp32", seed=5, **options)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def assert_same_training(found: Path, expected: Path) -> None:
    a, b = (read_checkpoint(path).state for path in (found, expected))
    assert a.keys() == b.keys()
    for key in a.keys() - {"logging"}:
        assert same(a[key], b[key]), key
    for key in a["logging"].keys() - {"epoch_start_timestamps", "epoch_end_timestamps"}:
        assert same(a["logging"][key], b["logging"][key]), key


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINATIONS)
def test_continued_with_other_workers_is_the_same(name: str, make_project) -> None:
    overrides = [f"trainer.epochs={4}", *COMBINATIONS[name]]
    whole = run(make_project(results="whole"), overrides=overrides)
    project = make_project(results="part", workers=2)
    project.kernel.register(Interrupter(1), "interrupter")
    with pytest.raises(KeyboardInterrupt):
        run(project, overrides=overrides)
    trainer = whole.model_folder.name.split("__")[0]
    part = run(make_project(results="part"), trainer=None, overrides=_naming(overrides), continue_=True)
    assert part.model_folder.name.split("__")[0] == trainer
    ended_early = "stopped_early" in read_checkpoint(whole.checkpoint()).state
    assert ended_early == (name == "early stopping")
    assert_same_training(part.checkpoint(), whole.checkpoint())
    assert_same_training(part.checkpoint("best"), whole.checkpoint("best"))


def _naming(overrides: list[str]) -> list[str]:
    """What has to be said again when continuing: what the folder is named after."""
    return [text for text in overrides if text.startswith("trainer.norm=")]


def test_ended_early(make_project) -> None:
    overrides = ["trainer.patience=2", "trainer.lr=1e-12", "trainer.optimizer=sgd", "trainer.weight_decay=0"]
    overrides += ["trainer.augmentation=none", "trainer.epochs=60", "trainer.iterations_per_epoch=1"]
    fold = run(make_project(), overrides=overrides)
    checkpoint = read_checkpoint(fold.checkpoint())
    averages = checkpoint.state["logging"]["ema_fg_dice"]
    best = averages.index(max(averages))
    assert checkpoint.epochs_done == best + 3 < 60
    written = fold.checkpoint().stat().st_mtime_ns
    run(make_project(), continue_=True)  # over: nothing to do
    assert fold.checkpoint().stat().st_mtime_ns == written
    run(make_project(), continue_=True, overrides=["trainer.patience=3"])
    assert read_checkpoint(fold.checkpoint()).epochs_done > checkpoint.epochs_done


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["trainer.loss=topk", "trainer.loss.k=200"], "trainer.loss: .*k 200; expected a percentage"),
        (["trainer.loss.class_weights=[1, 2]"], "class_weights .*expected one number above 0 per output of.*: 3"),
        (["trainer.augmentation.mirror=[5]"], "trainer.augmentation: .*mirror .5.; expected"),
        (["trainer.patience=0"], "patience is 0; expected 1 or more"),
        (["trainer.weight_averaging=1"], "weight_averaging is 1.0"),
        (["trainer.lr_factors.encoder=-1"], "lr_factors: encoder is -1"),
        (["trainer.norm=layer"], "'layer' is no one of batch, instance or none"),
    ],
)
def test_wrong_values_are_told_before_anything_is_moved(make_project, overrides: list[str], told: str) -> None:
    project = make_project()
    with pytest.raises(UsageError, match=told):
        run(project, overrides=overrides, epochs=1)
    assert not list((project.workspace.results or Path()).rglob("*.pth"))
    assert not list((project.workspace.results or Path()).rglob("fold_*"))


def test_what_is_saved_is_the_average(make_project) -> None:
    overrides = ["trainer.weight_averaging=0.9", "trainer.optimizer=sgd", "trainer.lr=0.1"]
    fold = run(make_project(), overrides=overrides, epochs=2)
    checkpoint = read_checkpoint(fold.checkpoint())
    trained = checkpoint.state["segplug_trained_weights"]
    assert any(not torch.equal(weight, trained[name]) for name, weight in checkpoint.weights.items() if name in trained)
    # without averaging, the trained weights go on
    run(make_project(), overrides=["trainer.weight_averaging=none"], epochs=3, continue_=True)
    assert "segplug_trained_weights" not in read_checkpoint(fold.checkpoint()).state


def test_batch_norm_in_the_network_plans_and_names(make_project) -> None:
    project = make_project()
    fold = run(project, overrides=["trainer.norm=batch"], epochs=1)
    assert fold.model_folder.name == f"nnUNetTrainerBN__{PLANS}__3d_fullres"
    model = TrainedModel(project.kernel.registry, fold.model_folder)
    assert model.trainer == "nnUNetTrainerBN"
    (network,) = model.networks(torch.device("cpu"))
    assert any(isinstance(module, nn.BatchNorm3d) for module in network.modules())
    assert not any(isinstance(module, nn.InstanceNorm3d) for module in network.modules())


def test_average() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.constant_(network[0].weight, 1.0)
    average = WeightAverage(network, 0.5)
    for step, value in enumerate((2.0, 3.0)):
        nn.init.constant_(network[0].weight, value)
        average.update(step)
    # the share of the past is 1/10, then 2/11
    expected = 2 / 11 * (0.1 * 1 + 0.9 * 2) + 9 / 11 * 3
    with average.in_network() as trained:
        assert network[0].weight.item() == pytest.approx(expected)
        assert trained["0.weight"].item() == 3
    assert network[0].weight.item() == 3


def test_frozen_modules_keep_their_statistics() -> None:
    network = nn.Sequential(nn.BatchNorm1d(1), nn.BatchNorm1d(1))
    set_training(network, ["0"])
    assert (network[0].training, network[1].training) == (False, True)


def test_groups_of_parameters() -> None:
    network = nn.ModuleDict({"a": nn.ModuleList([nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)])})
    groups = parameter_groups(network, {"a": 0.5, "a.1": 0.1})
    assert [(group["lr_factor"], len(group["params"])) for group in groups] == [(0.5, 1), (0.1, 1)]
    assert len(parameter_groups(network, {})) == 2
