"""The pages for those who know nnU-Net name what exists."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from typer.main import get_command

from segplug_builtin.trainers.nnunet import NNUNetTrainer

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_commands_of_the_table_exist_and_options_too() -> None:
    from segplug.cli.main import COMMANDS, app

    page = (DOCS / "coming-from-nnunet.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `nnUNetv2_.*? \| (.*?) \|$", page, re.MULTILINE)
    spans = [span for cell in rows for span in re.findall(r"`([^`]+)`", cell) if span.split()[0] in COMMANDS]
    assert len(rows) > 12
    assert len(spans) >= len(rows)
    for span in spans:
        words = span.split()
        command: Any = get_command(app)
        while words and hasattr(command, "list_commands"):
            command = command.get_command(None, words.pop(0))
            assert command is not None, span
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert not [word for word in words if word.startswith("-") and word not in known], span


def test_every_command_of_the_inventory_is_in_the_table() -> None:
    page = (DOCS / "coming-from-nnunet.md").read_text(encoding="utf-8")
    titles = re.findall(
        r'^title = "(nnUNetv2_\w+)"', (DOCS / "inventory.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(titles) == 21
    assert not [title for title in titles if f"`{title}`" not in page]


def test_the_page_of_training_options_has_every_setting() -> None:
    page = (DOCS / "training.md").read_text(encoding="utf-8")
    first = {name for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert first == {field.name for field in fields(NNUNetTrainer)}
