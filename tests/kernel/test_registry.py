"""Every rule of precedence, and what the errors say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from segplug import Component, ComponentRef
from segplug.errors import PluginError, UsageError
from segplug.kernel import KINDS, Kernel


def steady(lr: float, *, epoch: int, epochs: int, iteration: int, iterations: int, factor: float = 1.0) -> float:
    return lr * factor


def schedule(name: str, **options: Any) -> dict[str, list[Component[Any]]]:
    return {"schedules": [Component(name, steady, "steady", **options)]}


def test_a_built_in_is_found_by_name_alias_and_qualified_name(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with().registry
    for name in ("zscore", "ZScoreNormalization", "builtin:zscore", "builtin:ZScoreNormalization"):
        found = registry.find("normalizers", name)
        assert found.qualified_name == "builtin:zscore"
        assert found.asked == name
    assert registry.find("architectures", "dynamic_network_architectures.architectures.unet.PlainConvUNet")


def test_a_new_name_needs_nothing(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(other=schedule("steady", aliases=("flat",))).registry
    assert registry.find("schedules", "steady").qualified_name == "other:steady"
    assert registry.find("schedules", "flat").qualified_name == "other:steady"
    assert registry.problems() == []
    assert registry.replacements() == []


def test_replaces_stands_in_for_every_name_of_the_built_in(kernel_with: Callable[..., Kernel]) -> None:
    def halve(channel: Any, mask: Any, statistics: Any) -> Any:
        return channel / 2

    for mine in (Component("zscore", halve, "", replaces=True), Component("x", halve, "", ("zscore",), replaces=True)):
        registry = kernel_with(other={"normalizers": [mine]}).registry
        for name in ("zscore", "ZScoreNormalization"):
            assert registry.find("normalizers", name).plugin.name == "other"
        assert registry.find("normalizers", "builtin:zscore").plugin.name == "builtin"
        assert [(a.qualified_name, b.qualified_name) for a, b in registry.replacements()] == [
            ("builtin:zscore", f"other:{mine.name}")
        ]


def test_shadowing_without_replaces_is_an_error_that_says_so(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(other=schedule("poly")).registry
    with pytest.raises(
        PluginError, match=r"(?s)plugin 'other'.*'poly'.*without replaces=True.*\"schedules.poly\""
    ) as error:
        registry.find("schedules", "poly")
    assert "other:poly" in str(error.value)
    assert "builtin:poly" in str(error.value)
    assert registry.find("schedules", "other:poly").plugin.name == "other"
    assert registry.find("schedules", "builtin:poly").plugin.name == "builtin"
    assert len(registry.problems()) == 1


def test_an_alias_shadows_too(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(other=schedule("mine", aliases=("poly",))).registry
    with pytest.raises(PluginError, match="without replaces=True"):
        registry.find("schedules", "poly")
    assert registry.find("schedules", "mine").plugin.name == "other"


def test_a_shadow_is_not_hidden_by_one_that_replaces(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(open=schedule("poly", replaces=True), sly=schedule("poly")).registry
    with pytest.raises(PluginError, match="plugin 'sly'"):
        registry.find("schedules", "poly")


@pytest.mark.parametrize("name", ["poly", "new"])
@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_two_outside_providers_conflict_in_any_order(
    kernel_with: Callable[..., Kernel], name: str, order: tuple[str, str]
) -> None:
    plugins = {plugin: schedule(name, replaces=True) for plugin in order}
    registry = kernel_with(**plugins).registry
    with pytest.raises(PluginError) as error:
        registry.find("schedules", name)
    for text in ("plugin 'a'", "plugin 'b'", f'[pins] "schedules.{name}" = "a:{name}"', f'"b:{name}"'):
        assert text in str(error.value)
    assert registry.find("schedules", f"a:{name}").plugin.name == "a"
    assert registry.replacements() == []


def test_a_pin_beats_replaces_and_settles_conflicts(kernel_with: Callable[..., Kernel]) -> None:
    plugins = {plugin: schedule("poly", replaces=True) for plugin in ("a", "b")}
    for target in ("a:poly", "b:poly", "builtin:poly"):
        registry = kernel_with(pins={"schedules.poly": target}, **plugins).registry
        assert registry.find("schedules", "poly").qualified_name == target
        assert registry.problems() == []


def test_a_pin_lets_a_shadow_in(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(pins={"schedules.poly": "sly:poly"}, sly=schedule("poly")).registry
    assert registry.find("schedules", "poly").plugin.name == "sly"
    assert [new.plugin.name for _, new in registry.replacements()] == ["sly"]


def test_a_qualified_name_beats_a_pin(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(pins={"schedules.poly": "a:poly"}, a=schedule("poly", replaces=True)).registry
    assert registry.find("schedules", "builtin:poly").plugin.name == "builtin"


def test_a_pin_on_one_name_of_a_built_in_holds_for_all(kernel_with: Callable[..., Kernel]) -> None:
    def halve(channel: Any, mask: Any, statistics: Any) -> Any:
        return channel / 2

    other = {"normalizers": [Component("zscore", halve, "", replaces=True)]}
    for pinned in ("zscore", "ZScoreNormalization"):
        registry = kernel_with(pins={f"normalizers.{pinned}": "builtin:zscore"}, other=other).registry
        for name in ("zscore", "ZScoreNormalization"):
            assert registry.find("normalizers", name).plugin.name == "builtin"


def test_a_pin_may_send_a_built_in_name_to_another(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(pins={"schedules.poly": "other:steady"}, other=schedule("steady")).registry
    assert registry.find("schedules", "poly").qualified_name == "other:steady"


def test_a_pin_that_leads_nowhere_is_an_error_never_a_fallback(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(pins={"schedules.poly": "gone:poly"}).registry
    with pytest.raises(
        PluginError, match=r"no component 'gone:poly' among the schedules, to which schedules.poly is pinned"
    ):
        registry.find("schedules", "poly")
    assert registry.find("schedules", "one_cycle")
    assert len(registry.problems()) == 1


def test_a_pin_on_a_name_that_nobody_has_is_told(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(pins={"schedules.poli": "builtin:poly", "schedules.poly": "builtin:poly"}).registry
    assert registry.problems() == ["[pins] schedules.poli: there is no such component"]


@pytest.mark.parametrize(
    "pins", [{"loses.dice": "a:b"}, {"losses": "a:b"}, {"losses.": "a:b"}, {"schedules.poly": "no_colon"}]
)
def test_a_pin_of_wrong_form_is_a_usage_error(pins: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="expected"):
        Kernel(pins=pins, discover=False)


def test_unknown_names_list_what_exists_and_the_nearest(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with().registry
    with pytest.raises(PluginError, match=r"no component 'poli' .*Did you mean 'poly'\? There are: .*, poly\."):
        registry.find("schedules", "poli")
    with pytest.raises(PluginError, match=r"Did you mean 'ZScoreNormalization'\?"):
        registry.find("normalizers", "ZscoreNormalisation")
    with pytest.raises(PluginError, match=r"Did you mean 'builtin:poly'\?"):
        registry.find("schedules", "buildin:poly")
    with pytest.raises(UsageError, match=r"no kind of component 'loss'. Did you mean 'losses'\?"):
        registry.find("loss", "dice_ce")


def test_a_name_holds_within_its_kind_only(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(
        other={"optimizers": [Component("poly", lambda parameters, *, lr, weight_decay: None, "")]}
    ).registry
    assert registry.find("schedules", "poly").plugin.name == "builtin"
    assert registry.find("optimizers", "poly").plugin.name == "other"


# --- building ------------------------------------------------------------------------------------------------------


class Distance:
    """A loss that asks for the plan's batch Dice."""

    def __init__(self, batch_dice: bool, gamma: float = 2.0) -> None:
        if gamma < 0:
            raise ValueError("gamma is negative")
        self.batch_dice, self.gamma = batch_dice, gamma

    def __call__(self, logits: Any, target: Any) -> float:
        return 0.0


def test_function_style_binds_options(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(other=schedule("steady")).registry
    place = {"epoch": 0, "epochs": 1, "iteration": 0, "iterations": 1}
    assert registry.build("schedules", "steady") is steady
    assert registry.build("schedules", ComponentRef("steady", {"factor": 3.0}))(2.0, **place) == 6.0


def test_object_style_gets_options_and_what_it_asks_for(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(other={"losses": [Component("distance", Distance, "")]}).registry
    loss = registry.build("losses", "distance", batch_dice=True, regions=False, classes=3)
    assert (loss.batch_dice, loss.gamma) == (True, 2.0)
    chosen = registry.build("losses", ComponentRef("distance", {"gamma": 1.0, "batch_dice": False}), batch_dice=True)
    assert (chosen.batch_dice, chosen.gamma) == (False, 1.0)


@pytest.mark.parametrize(
    ("kind", "ref", "expected"),
    [
        ("losses", ComponentRef("distance", {"gama": 1.0}), r"'gama'.*It takes: batch_dice, gamma"),
        ("losses", ComponentRef("distance", {"gamma": -1.0}), "gamma is negative"),
        ("losses", ComponentRef("bare"), "'logits'.*called with options alone and returns what is used"),
        ("losses", ComponentRef("distance", {"gamma": "x"}), "'<' not supported"),
        ("schedules", ComponentRef("steady", {"faktor": 1}), r"other:steady.*'faktor'.*It takes: factor$"),
    ],
)
def test_options_it_does_not_take(
    kernel_with: Callable[..., Kernel], kind: str, ref: ComponentRef, expected: str
) -> None:
    losses = [Component("distance", Distance, ""), Component("bare", lambda logits, target: logits.mean(), "")]
    components = {"losses": losses, **schedule("steady")}
    with pytest.raises(PluginError, match=expected):
        kernel_with(other=components).registry.build(kind, ref, **({"batch_dice": True} if kind == "losses" else {}))


def test_check_finds_a_wrong_name_or_option_and_makes_nothing(kernel_with: Callable[..., Kernel]) -> None:
    made = []

    def distance(batch_dice: bool, gamma: float = 2.0) -> Distance:
        made.append(gamma)
        return Distance(batch_dice, gamma)

    registry = kernel_with(other={"losses": [Component("distance", distance, "")]}).registry
    registry.check("losses", ComponentRef("distance", {"gamma": 1.0}))
    with pytest.raises(PluginError, match=r"'gama'.*It takes: batch_dice, gamma"):
        registry.check("losses", ComponentRef("distance", {"gama": 1.0}))
    with pytest.raises(PluginError, match="Did you mean 'distance'"):
        registry.check("losses", ComponentRef("distanc"))
    assert made == []
    assert registry.used() == []


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("nowhere_at_all.loss:Focal", "No module named 'nowhere_at_all'"),
        ("json:Focal", "has no attribute 'Focal'"),
        ("json", "not of the form 'module:attribute'"),
        ("json:decoder.NaN", "which cannot be called"),
    ],
)
def test_an_implementation_that_cannot_be_imported_names_the_plugin(
    kernel_with: Callable[..., Kernel], factory: str, expected: str
) -> None:
    registry = kernel_with(other={"losses": [Component("focal", factory, "")]}).registry
    with pytest.raises(PluginError, match="losses: 'focal' of plugin 'other'") as error:
        registry.build("losses", "focal")
    assert expected in str(error.value)


def test_an_explicit_choice_that_fails_does_not_fall_back(kernel_with: Callable[..., Kernel]) -> None:
    broken = Component("dice_ce", "nowhere_at_all.loss:Focal", "", replaces=True)
    with pytest.raises(PluginError, match="nowhere_at_all"):
        kernel_with(other={"losses": [broken]}).registry.build("losses", "dice_ce")


class Fits:
    """Half of a postprocessor."""

    def fit(self, pairs: Any, labels: Any) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("kind", "factory", "expected"),
    [
        ("postprocessors", Fits, "is no Postprocessor: it has no method 'apply'"),
        ("losses", object, "is no Loss: a object cannot be called"),
        ("readers", lambda: None, r"is no Reader: it cannot be called with \(paths\)"),
        ("optimizers", lambda parameters: None, r"cannot be called with \(parameters, lr=..., weight_decay=...\)"),
    ],
)
def test_what_is_built_satisfies_its_protocol(
    kernel_with: Callable[..., Kernel], kind: str, factory: Callable[..., Any], expected: str
) -> None:
    with pytest.raises(PluginError, match=expected):
        kernel_with(other={kind: [Component("mine", factory, "")]}).registry.build(kind, "mine")


def test_every_kind_has_a_protocol() -> None:
    for kind in KINDS.values():
        assert kind.load_protocol().__doc__, kind
