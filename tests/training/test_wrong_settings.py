"""Values that cannot be meant are refused before anything is begun or moved."""

from __future__ import annotations

import pytest

from segplug.errors import CheckpointError, UsageError
from segplug.stages import train as stage
from segplug.stages.train import train

NAME, PLANS = "Dataset601_Phantom", "tinyPlans"

WRONG = [
    "batch_size=0",
    "batch_size=-1",
    "batch_size=1.5",
    "batch_size=nan",
    "batch_size=1e99",
    "lr=nan",
    "lr=inf",
    "lr=-1",
    "lr=0",
    "lr=abc",
    "weight_decay=-1",
    "weight_decay=nan",
    "weight_decay=inf",
    "gradient_clip=0",
    "gradient_clip=nan",
    "gradient_clip=inf",
    "epochs=0",
    "epochs=1e400",
    "iterations_per_epoch=0",
    "iterations_per_epoch=1e9",
    "accumulate=1e9",
    "val_iterations_per_epoch=-1",
    "accumulate=0",
    "patience=0",
    "oversample_foreground=2",
    "oversample_foreground=nan",
    "weight_averaging=1",
    "weight_averaging=nan",
    "lr_factors.encoder=-1",
    "lr_factors.encoder=inf",
    "lr_factors.encoder=x",
    "lr_factors.encodr=0.5",
    "freeze=encodr",
    'freeze=["encoder", "decoder"]',
    "optimizer.foo=1",
    "optimizer.beta2=2",
    "optimizer.beta1=-1",
    "optimizer.eps=nan",
    "optimizer.eps=x",
    "optimizer.amsgrad=2",
    "schedule.foo=1",
    "schedule.warmup=1",
    "schedule.warmup=x",
    "schedule.end=nan",
    "loss.smooth=-1",
    "loss.smooth=nan",
    "loss.weight_ce=nan",
    "loss.weight_dice=-2",
    "loss.batch_dice=x",
    "loss.class_weights=[1]",
    "loss.class_weights=[1,-1,1]",
    "loss.class_weights=5",
    "augmentation.mirror=x",
    "augmentation.mirror=[7]",
    "augmentation.labels=x",
    "augmentation.dummy_2d=x",
    "deep_supervision=x",
    "norm=x",
    "probabilistic_oversampling=x",
]


class BegunError(Exception):
    pass


@pytest.fixture
def refuse(make_project, monkeypatch):
    """Calls train up to where it would touch the folder of the fold."""

    def begin(*_):
        raise BegunError

    monkeypatch.setattr(stage, "working_in", begin)

    def call(*overrides, **options):
        train(make_project(), NAME, "3d_fullres", 0, plans_name=PLANS, overrides=overrides, **options)

    return call


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_setting(refuse, wrong):
    with pytest.raises(UsageError, match=rf"trainer.*{wrong.partition('=')[0].rpartition('.')[2]}"):
        refuse(f"trainer.{wrong}")


def test_a_checkpoint_that_is_none(refuse, tmp_path):
    file = tmp_path / "bad.pth"
    file.write_bytes(b"xxxx")
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        refuse(pretrained=file)


@pytest.mark.parametrize("wrong", ["poly,warmup_epochs=-1", "cosine,warmup_epochs=x", "poly,exponent=nan"])
def test_a_wrong_option_of_another_schedule(refuse, wrong):
    name, option = wrong.split(",")
    with pytest.raises(UsageError, match=option.partition("=")[0]):
        refuse(f"trainer.schedule={name}", f"trainer.schedule.{option}")


@pytest.mark.parametrize("right", ["lr=1e-3", "optimizer=sgd", "schedule=poly", "loss=topk", "gradient_clip=none"])
def test_the_check_lets_pass_what_is_right(refuse, right):
    with pytest.raises(BegunError):
        refuse(f"trainer.{right}")


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_a_seed_that_nothing_holds(refuse, seed):
    with pytest.raises(UsageError, match=r"--seed .*expected a whole number from 0 to 9223372036854775807"):
        refuse(seed=seed)
