"""What was recorded of plugins, and what is said when it is no longer so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from segplug import Component
from segplug.errors import PluginError
from segplug.kernel import Kernel
from segplug.kernel.provenance import differences, record, require_same

MINE = {"losses": [Component("dice_ce", "m:x", "", replaces=True)]}
NEW = {"losses": [Component("focal", "m:x", "")]}


def test_record_is_json_and_names_what_stood_behind_each_name(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(other=NEW).registry
    for kind, name in (("losses", "focal"), ("normalizers", "ZScoreNormalization"), ("losses", "focal")):
        registry.resolve(kind, name)
    recorded = record(registry.used())
    from segplug import __version__

    builtin = {"plugin": "builtin", "distribution": "segplug", "version": __version__}
    assert json.loads(json.dumps(recorded)) == [
        {"kind": "losses", "name": "focal", "plugin": "other", "distribution": "(this process)", "version": "-"},
        {"kind": "normalizers", "name": "ZScoreNormalization", **builtin},
    ]


def test_looking_is_not_using(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(other=MINE).registry
    registry.find("losses", "dice_ce")
    registry.replacements()
    registry.problems()
    differences([{"kind": "losses", "name": "dice_ce"}], registry)
    assert registry.used() == []


def test_the_same_providers_differ_in_nothing(kernel_with: Callable[..., Kernel]) -> None:
    plugins = {"other": MINE}
    registry = kernel_with(**plugins).registry
    for name in ("dice_ce", "builtin:dice_ce", "other:dice_ce"):
        registry.resolve("losses", name)
    recorded = record(registry.used())
    assert len(recorded) == 3
    assert differences(recorded, kernel_with(**plugins).registry) == []
    assert require_same(recorded, registry, "the model", allow_change=False) == []


@pytest.mark.parametrize(
    ("then", "now", "name", "provided", "expected"),
    [
        ({}, {"other": MINE}, "dice_ce", True, "was provided by plugin 'builtin' (segplug {v}); now it is 'other'"),
        (
            {"other": MINE},
            {},
            "dice_ce",
            True,
            "was provided by plugin 'other' ((this process) -); now it is 'builtin'",
        ),
        ({"other": NEW}, {}, "focal", False, "Install it: pip install"),
        ({"other": MINE}, {"other": MINE, "third": MINE}, "dice_ce", False, "both provide"),
    ],
)
def test_other_providers_are_refused_unless_allowed(
    kernel_with: Callable[..., Kernel],
    then: dict[str, Any],
    now: dict[str, Any],
    name: str,
    provided: bool,
    expected: str,
) -> None:
    from segplug import __version__

    registry = kernel_with(**then).registry
    registry.resolve("losses", name)
    recorded, current = record(registry.used()), kernel_with(**now).registry
    with pytest.raises(PluginError, match="the model was made with other plugins") as error:
        require_same(recorded, current, "the model", allow_change=False)
    assert expected.replace("{v}", __version__) in str(error.value)
    assert ("--allow-provider-change" in str(error.value)) == provided
    if provided:
        assert require_same(recorded, current, "the model", allow_change=True) == differences(recorded, current)
        with pytest.raises(PluginError, match="or train anew"):
            require_same(recorded, current, "the model", allow_change=False, way_out="train anew")
    else:  # there is no other to allow: what to do is said as without the flag
        with pytest.raises(PluginError) as allowed:
            require_same(recorded, current, "the model", allow_change=True)
        assert str(allowed.value) == str(error.value)


def test_another_version_of_the_same_plugin_is_no_difference(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with().registry
    registry.resolve("losses", "dice_ce")
    older = [{**entry, "version": "0.0.1"} for entry in record(registry.used())]
    assert differences(older, registry) == []


def test_a_pin_that_changes_what_a_name_meant_is_a_difference(kernel_with: Callable[..., Kernel]) -> None:
    registry = kernel_with(other=MINE).registry
    registry.resolve("losses", "dice_ce")
    pinned = kernel_with(pins={"losses.dice_ce": "builtin:dice_ce"}, other=MINE).registry
    assert len(differences(record(registry.used()), pinned)) == 1


def test_records_of_an_unknown_kind_are_a_difference_not_a_crash(kernel_with: Callable[..., Kernel]) -> None:
    found = differences([{"kind": "teapots", "name": "x"}, {}], kernel_with().registry)
    assert len(found) == 2
