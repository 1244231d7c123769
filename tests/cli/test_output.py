"""What commands write for people: whole names in terminals of any width, one way of counting, plain usage lines."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from segplug.cli.progress import ProgressDisplay
from segplug.model import EpochReport
from segplug.runtime.wording import counted, listed

MAIN = "from segplug.cli.main import main; main()"
SHOW = "import json, sys; from segplug.cli.shell import show; show(*json.loads(sys.argv[1]))"


def in_terminal(width: int, *command: str) -> str:
    """What a Python command prints in a terminal of a width, without escape codes."""
    controller, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 50, width, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")} | {
        "TERM": "xterm"
    }
    process = subprocess.Popen(
        [sys.executable, "-c", *command], stdout=terminal, stderr=subprocess.DEVNULL, env=environment
    )
    os.close(terminal)
    parts = []
    try:
        while part := os.read(controller, 65536):
            parts.append(part)
    except OSError:  # the end, as Linux tells it
        pass
    os.close(controller)
    assert process.wait() == 0
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", b"".join(parts).decode()).replace("\r\n", "\n")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_in_terminals_cut_nothing(width: int) -> None:
    shown = in_terminal(width, MAIN, "plugins", "list")
    assert "…" not in shown
    for name in ("simpleitk_reorient", "nnunet", "dice_ce"):
        assert name in shown
    assert "in force" not in shown  # worth a word only where something is not


def test_rows_without_room_become_blocks() -> None:
    table = '[["case", "liver Dice", "spleen Dice", "mean Dice"], [["a_case_of_a_long_name", 0.91234, null, 0.5]]]'
    assert "│ 0.9123" in in_terminal(80, SHOW, table)
    assert in_terminal(40, SHOW, table).splitlines() == [
        "a_case_of_a_long_name",
        "  liver Dice   0.9123",
        "  spleen Dice  ",
        "  mean Dice    0.5000",
    ]


def test_brackets_in_names_are_no_markup() -> None:
    assert "x[bold]y" in in_terminal(80, SHOW, '[["a", "b"], [["x[bold]y", "[/]"]]]')


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("train", "[OPTIONS] DATASET CONFIG FOLD"),
        ("run", "[OPTIONS] DATASET"),
        ("evaluate", "[OPTIONS] REFERENCE PREDICTION"),
        ("plan", "[OPTIONS] DATASET"),
    ],
)
def test_usage_lines_are_those_of_the_design(command: str, usage: str) -> None:
    done = subprocess.run([sys.executable, "-c", MAIN, command, "-h"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].split() == ["Usage:", "segplug", command, *usage.split()]


def test_what_is_counted_agrees_with_its_number() -> None:
    assert [counted(n, "case") for n in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    assert counted(2, "axis", "axes") == "2 axes"
    assert listed(["a", "b", "c"], at_most=2) == "a, b and 1 more"


def test_epochs_are_counted_from_one_in_every_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    display = ProgressDisplay()
    display.segplug_stage_started("train", "fold 0", 1)
    display.segplug_epoch_finished(tmp_path, EpochReport(0, 1, 0.5, 0.5, (0.7,), 0.7, 0.7, 0.01, 1.0))
    display.segplug_stage_progress("train", "epoch 1", 1, 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train fold 0: started, 1 step"
    assert lines[1].startswith("epoch 1/1: ")
    assert lines[2] == "train: 1/1 epoch 1"
