"""Settings by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplug.errors import UsageError
from segplug.model import ComponentRef
from segplug.runtime.overrides import apply_overrides, as_settings, configure
from segplug_builtin.trainers.nnunet import NNUNetTrainer
from segplug_builtin.trainers.short import short_trainer


@dataclass(frozen=True)
class Settings:
    epochs: int = 10
    lr: float = 0.1
    clip: float | None = 12.0
    mirror: bool = True
    name: str = "x"
    mode: Literal["fast", "slow"] = "fast"
    size: tuple[int, ...] = (1, 2)
    span: tuple[float, float] = (0.0, 1.0)
    parts: tuple[str, ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict)
    loss: ComponentRef = field(default=ComponentRef("dice_ce", {"smooth": 1.0}))


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("epochs=3", "epochs", 3),
        ("epochs=3.0", "epochs", 3),
        ("lr=1e-3", "lr", 1e-3),
        ("lr=.5", "lr", 0.5),
        ("lr=1", "lr", 1.0),
        ("clip=none", "clip", None),
        ("clip=None", "clip", None),
        ("clip=null", "clip", None),
        ("clip=3", "clip", 3.0),
        ("mirror=false", "mirror", False),
        ("mirror=True", "mirror", True),
        ("name=3", "name", "3"),
        ("name=a=b", "name", "a=b"),
        ("mode=slow", "mode", "slow"),
        ("size=[3, 4, 5]", "size", (3, 4, 5)),
        ("span=[1, 2]", "span", (1.0, 2.0)),
        ("parts=a.b, c", "parts", ("a.b", "c")),
        ('parts=["a"]', "parts", ("a",)),
        ("factors.a.b=0.5", "factors", {"a.b": 0.5}),
        ('factors={"a": 1}', "factors", {"a": 1}),
        ("loss=focal", "loss", ComponentRef("focal")),
        ("loss=dice_ce", "loss", ComponentRef("dice_ce", {"smooth": 1.0})),
        ("loss.gamma=2", "loss", ComponentRef("dice_ce", {"smooth": 1.0, "gamma": 2})),
        ("loss.scale.z=.5", "loss", ComponentRef("dice_ce", {"smooth": 1.0, "scale": {"z": 0.5}})),
        ("loss.kind=soft", "loss", ComponentRef("dice_ce", {"smooth": 1.0, "kind": "soft"})),
    ],
)
def test_values_become_the_fields_type(text, name, expected):
    changed = apply_overrides(Settings(), [f"trainer.{text}"])
    value = getattr(changed, name)
    assert value == expected
    assert type(value) is type(expected)
    assert {**vars(changed), name: None} == {**vars(Settings()), name: None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer.epochs=abc", "trainer.epochs: 'abc' is no whole number"),
        ("trainer.epochs=1.5", "trainer.epochs: 1.5 is no whole number"),
        ("trainer.epochs=true", "trainer.epochs: True is no whole number"),
        ("trainer.epochs=inf", "trainer.epochs: inf is no whole number"),
        ("trainer.lr=fast", "trainer.lr: 'fast' is no number"),
        ("trainer.clip=x", "trainer.clip: 'x' is no number or none"),
        ("trainer.mirror=1", "trainer.mirror: 1 is no true or false"),
        ("trainer.mode=medium", "trainer.mode: 'medium' is no one of fast, slow"),
        ("trainer.size=3", "trainer.size: 3 is no tuple"),
        ("trainer.span=[1]", "trainer.span"),
        ("trainer.epoch=3", "no setting trainer.epoch. Did you mean 'epochs'? There are: epochs, lr, clip"),
        ("trainer.los.gamma=3", "Did you mean 'loss'?"),
        ("trainer.epochs.x=3", "trainer.epochs is no component and has no options"),
        ("epochs=3", "--set epochs=3: expected trainer.<field>=<value>"),
        ("trainer.epochs", "expected trainer.<field>=<value>"),
        ("trainer=3", "expected trainer.<field>=<value>"),
        ("trainer..x=3", "expected trainer.<field>=<value>"),
        ("trainer.loss=", "trainer.loss: '' is no component"),
    ],
)
def test_mistakes_say_what_is_wrong(text, message):
    with pytest.raises(UsageError) as raised:
        apply_overrides(Settings(), [text])
    assert message in str(raised.value)
    assert raised.value.exit_code == 2


def test_a_name_counts_before_options_in_any_order():
    expected = ComponentRef("focal", {"gamma": 2})
    for order in (["loss=focal", "loss.gamma=2"], ["loss.gamma=2", "loss=focal"]):
        assert apply_overrides(Settings(), [f"trainer.{text}" for text in order]).loss == expected


def test_a_trainer_refuses_senseless_values():
    for text in ("epochs=0", "lr=0", "oversample_foreground=2", "batch_size=0", "gradient_clip=-1"):
        name = text.partition("=")[0]
        with pytest.raises(UsageError, match=f"trainer: {name} is"):
            apply_overrides(NNUNetTrainer(), [f"trainer.{text}"])


def test_recipe_of_a_plan():
    recipe = {"epochs": 4, "lr": 3e-3, "optimizer": {"name": "adamw", "options": {"beta2": 0.99}}, "loss": "dice_ce"}
    changed = configure(NNUNetTrainer(), recipe, "trainer")
    assert changed.epochs == 4
    assert changed.optimizer == ComponentRef("adamw", {"beta2": 0.99})
    for wrong in ({"name": "adamw", "option": {}}, 3, {"options": {}}):
        with pytest.raises(UsageError, match="optimizer"):
            configure(NNUNetTrainer(), {"optimizer": wrong}, "trainer")


@pytest.mark.parametrize("trainer", [NNUNetTrainer(), short_trainer(), NNUNetTrainer(batch_size=3, gradient_clip=None)])
def test_settings_survive_a_checkpoint(trainer):
    assert configure(NNUNetTrainer(), as_settings(trainer), "trainer") == trainer


def test_no_dataclass_has_no_settings():
    assert configure(object(), {}, "trainer") is not None
    with pytest.raises(UsageError, match="no dataclass"):
        apply_overrides(object(), ["trainer.epochs=3"])


@given(st.integers(1, 10**6), st.floats(1e-9, 1e3))
def test_numbers_go_through_text(epochs, lr):
    changed = apply_overrides(Settings(), [f"trainer.epochs={epochs}", f"trainer.lr={lr!r}"])
    assert (changed.epochs, changed.lr) == (epochs, lr)
