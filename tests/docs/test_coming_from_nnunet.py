"""The page for nnU-Net's users is complete, and what it says exists."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from segplug_builtin.trainers.nnunet import NNUNetTrainer
from segplug_builtin.trainers.nnunet_classes import CLASSES, in_words

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "coming-from-nnunet.md").read_text(encoding="utf-8")


def sections() -> dict[str, dict[str, str]]:
    """Of each command of nnunetv2: argument -> cell beside it."""
    found: dict[str, dict[str, str]] = {}
    for title, text in re.findall(r"^### (nnUNetv2_\w+)\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL):
        rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", text, re.MULTILINE)
        found[title] = {name: ours for names, ours in rows for name in re.findall(r"`([^`]+)`", names)}
    return found


def test_trainer_classes_stand_beside_their_settings() -> None:
    rows = dict(re.findall(r"^\| `(\w*(?:nnUNet|Primus)\w*)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert {name: rows[name].strip("`") for name in CLASSES} == {name: in_words(name) for name in CLASSES}


def mentioned() -> list[tuple[str, str]]:
    """Texts of the right column that are commands of segplug."""
    from segplug.cli.main import COMMANDS

    cells = [(title, cell) for title, rows in sections().items() for cell in rows.values()]
    spans = [(title, span) for title, cell in cells for span in re.findall(r"`([^`]+)`", cell)]
    return sorted({(title, span) for title, span in spans if span.split()[0] in COMMANDS})


def test_commands_and_options_beside_them_exist() -> None:
    from segplug.cli.main import app

    assert len(mentioned()) > 60
    for title, span in mentioned():
        words = span.split()
        command: Any = get_command(app)
        while words and hasattr(command, "list_commands"):
            found = command.get_command(None, words.pop(0))
            assert found is not None, f"{title}: {span}"
            command = found
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            assert not word.startswith("-") or word in known, f"{title}: {span}"


@pytest.mark.parity
def test_every_command_argument_and_class_of_nnunetv2_is_on_the_page(peer: Path, parity) -> None:
    script = Path(__file__).with_name("peer_commands.py")
    theirs = json.loads(subprocess.run([peer, script], check=True, capture_output=True, text=True).stdout)
    ours = sections()
    missing = [name for name in theirs["commands"] if name not in ours]
    missing += [
        f"{name} {argument}"
        for name, arguments in theirs["commands"].items()
        for argument in arguments
        if argument not in ours.get(name, {})
    ]
    missing += [name for name in theirs["classes"] if f"`{name}`" not in PAGE]
    assert not missing, f"not on the page: {', '.join(missing)}"
    count = sum(map(len, theirs["commands"].values()))
    assert count > 120
    assert len(theirs["commands"]) == 21
    what = "commands, their arguments and trainer classes that the page for nnU-Net's users has"
    parity(what, len(theirs["commands"]) + count + len(theirs["classes"]), len(missing), 0, section="Networks")


def test_the_page_of_training_options_has_every_setting() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    first = {name for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert first == {field.name for field in fields(NNUNetTrainer)}
