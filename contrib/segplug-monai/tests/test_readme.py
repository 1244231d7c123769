"""What the README shows: components that exist, with options that they take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from segplug import ComponentRef
from segplug.kernel import Kernel

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_its_tables_name_every_component() -> None:
    shown = set(re.findall(r"`(monai_\w+)`", README))
    registry = Kernel().registry
    there = {
        name
        for kind in ("architectures", "planners", "losses")
        for name in registry.names(kind)
        if name.startswith("monai_")
    }
    assert shown == there


@pytest.mark.parametrize("row", re.findall(r"^\| [\w +]+\| `(monai_\w+)` \| (.*) \|$", README, re.MULTILINE))
def test_options_of_losses_are_theirs(row: tuple[str, str]) -> None:
    name, told = row
    for option in re.findall(r"`(\w+)` (?:\d|true)", told):
        Kernel().registry.check("losses", ComponentRef(name, {option: 1}))


def test_plans_have_the_names_that_are_shown() -> None:
    from segplug_monai.planners import SWINUNETR_NETWORK

    assert set(re.findall(r"segplugMonai\w+Plans", README)) == {f"segplugMonai{SWINUNETR_NETWORK.title}Plans"}
