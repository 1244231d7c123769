"""Commands that errors suggest: a fold that is missing is trained like those that are there."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from segplug.kernel import Kernel
from segplug.model import ComponentRef
from segplug.runtime.checkpoint import checkpoint_content
from segplug.runtime.checkpoint_writer import write_checkpoint
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.train_command import train_command
from segplug.runtime.trainer_choice import choose_trainer, record
from segplug_builtin.trainers.nnunet import NNUNetTrainer

KERNEL = Kernel(discover=False)
BEGIN = "segplug train Dataset502_MadeUp 2d 3 --plans-name nnUNetPlans"


@pytest.mark.parametrize(
    ("trainer", "named"),
    [("nnUNetTrainer", ""), ("nnUNetTrainer_250epochs", " --trainer nnUNetTrainer_250epochs")],
)
def test_without_other_folds_the_folder_names_the_trainer(trainer: str, named: str) -> None:
    folder = Path("results/Dataset502_MadeUp") / f"{trainer}__nnUNetPlans__2d"
    assert train_command(KERNEL, folder, 3) == f"{BEGIN}{named} --continue"


def begun(model: Path, extension: dict[str, object], fold: int = 0) -> None:
    """A fold with a checkpoint of a network that nobody runs."""
    content = checkpoint_content(
        nn.Linear(2, 3),
        plans=json.loads((model / "plans.json").read_text()),
        configuration="2d",
        fold=fold,
        dataset_json={},
        trainer="nnUNetTrainer",
        mirror_axes=(0, 1),
        state={"optimizer_state": {}, "current_epoch": 1, "logging": {}, "_best_ema": None},
        extension=extension,
    )
    write_checkpoint(model / f"fold_{fold}" / "checkpoint_final.pth", content)


SETTINGS = {
    "the defaults": NNUNetTrainer(),
    "numbers, words and none": NNUNetTrainer(
        epochs=7, lr=3e-4, gradient_clip=None, norm="batch", probabilistic_oversampling="as_fixed", patience=4
    ),
    "parts of the network": NNUNetTrainer(freeze=("encoder.stages.0", "encoder.stages.1"), lr_factors={"encoder": 0.1}),
    "components": NNUNetTrainer(
        loss=ComponentRef("dice_topk", {"k": 20, "class_weights": [1, 2.5]}),
        schedule=ComponentRef("poly", {"warmup_epochs": 2}),
        augmentation=ComponentRef("none"),
        deep_supervision=False,
    ),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_settings_of_the_folds_that_are_there_are_repeated(made_up, settings: NNUNetTrainer) -> None:
    model = made_up()[0]
    plan = read_plan(model / "plans.json")
    usual = choose_trainer(KERNEL, plan, "2d")
    begun(model, {"trainer": record(replace(usual, trainer=settings)), "seed": 5, "provenance": []})
    words = shlex.split(train_command(KERNEL, model, 3))
    assert shlex.join(words).startswith(BEGIN)
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert choose_trainer(KERNEL, plan, "2d", overrides=sets).trainer == settings
    assert words[-3:] == ["--seed", "5", "--continue"]
    # the fold that was begun goes on as it is
    assert train_command(KERNEL, model, 0) == f"{BEGIN.replace('2d 3', '2d 0')} --continue"


def test_another_trainer_and_other_weights_are_named(made_up) -> None:
    model = made_up()[0]
    short = choose_trainer(KERNEL, read_plan(model / "plans.json"), "2d", name="short")
    begun(model, {"trainer": record(short), "pretrained": {"file": "/with space/x.pth"}, "provenance": []})
    assert train_command(KERNEL, model, 3) == f"{BEGIN} --trainer short --pretrained '/with space/x.pth' --continue"


@pytest.mark.parametrize("extension", [{}, {"trainer": {"name": "gone", "settings": {}}}])
def test_what_another_program_or_plugin_trained_does_not_stand_in_the_way(made_up, extension) -> None:
    model = made_up()[0]
    begun(model, extension)
    assert train_command(KERNEL, model, 3) == f"{BEGIN} --continue"
