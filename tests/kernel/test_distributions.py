"""What real distributions do to segplug, seen through the command line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ALL = (
    "segplug-replacing",
    "segplug-rival-a",
    "segplug-rival-b",
    "segplug-broken",
    "segplug-future",
    "segplug-greeting",
    "segplug-listener",
    "segplug-shadowing",
)


@pytest.fixture(scope="module")
def everything(install: Callable[..., Any]) -> Any:
    """An environment with every test distribution but the impostor."""
    return install(*ALL)


def rows(done: Any) -> dict[tuple[str, str], dict[str, str]]:
    assert done.returncode == 0, done.stderr
    return {(row["kind"], row["qualified_name"]): row for row in json.loads(done.stdout)}


def test_list_json(everything: Any) -> None:
    done = everything.segplug("plugins", "list", "--format", "json")
    found = rows(done)
    assert found["losses", "builtin:dice_ce"]["state"] == "replaced by replacing:dice_ce"
    assert found["losses", "replacing:dice_ce"] == {
        "kind": "losses",
        "name": "dice_ce",
        "qualified_name": "replacing:dice_ce",
        "distribution": "segplug-replacing",
        "version": "1.2",
        "state": "in force",
        "summary": "overlap alone",
    }
    assert found["schedules", "rival_a:middle"]["state"] == "conflict"
    assert found["schedules", "rival_b:middle"]["state"] == "conflict"
    assert found["normalizers", "shadowing:zscore"]["state"] == "conflict"
    assert found["normalizers", "builtin:zscore"]["state"] == "conflict"
    assert found["normalizers", "builtin:ct"]["state"] == "replaced by replacing:ct"
    assert found["normalizers", "builtin:none"]["state"] == "in force"
    broken = found["plugin", "broken"]
    assert (broken["state"], broken["distribution"], broken["version"]) == ("broken", "segplug-broken", "3.0")
    assert "No module named 'a_library_that_is_not_installed'" in broken["summary"]
    assert found["plugin", "future"]["state"] == "incompatible"
    assert found["plugin", "future"]["summary"] == "speaks plugin API version 99; this segplug speaks 1"
    assert found["plugin", "listener"]["state"] == "active"
    assert "segplug_stage_finished" in found["plugin", "listener"]["summary"]
    assert found["command", "greet"]["state"] == "in force"
    assert found["command", "train"]["state"] == "ignored: the name of a built-in command"
    problems = [line for line in done.stderr.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 2, done.stderr
    assert "segplug-rival-a 0.1" in done.stderr
    assert "segplug-rival-b 0.2" in done.stderr
    assert '[pins] "schedules.middle" = "rival_a:middle"' in done.stderr
    assert "without replaces=True" in done.stderr


def test_list_table_has_the_same_rows_one_a_line(everything: Any) -> None:
    done = everything.segplug("plugins", "list")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["kind", "name", "qualified_name", "distribution", "version", "state", "summary"]
    found = rows(everything.segplug("plugins", "list", "--format", "json"))
    assert {(line[0], line[2]): dict(zip(lines[0], line, strict=True)) for line in lines[1:]} == found


def test_list_in_a_terminal_is_drawn(everything: Any) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 240))
    program = "from segplug.cli.main import main; main()"
    process = subprocess.Popen(
        [everything.python, "-c", program, "plugins", "list", "--kind", "schedules"],
        stdout=theirs,
        stderr=subprocess.PIPE,
        cwd=everything.folder,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    drawn = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        drawn += piece
    os.close(ours)
    process.communicate(timeout=60)
    assert process.returncode == 0
    text = drawn.decode()
    assert "┏━" in text
    assert "middle" in text
    assert "conflict" in text


def test_list_one_kind(everything: Any) -> None:
    found = rows(everything.segplug("plugins", "list", "--kind", "schedules", "--format", "json"))
    names = {name for _, name in found}
    assert names >= {"builtin:poly", "builtin:one_cycle", "rival_a:middle", "rival_b:middle"}
    assert not names & {"builtin:dice_ce", "replacing:dice_ce"}
    wrong = everything.segplug("plugins", "list", "--kind", "loses")
    assert wrong.returncode == 2
    assert "Did you mean 'losses'?" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "replacing",
            ["replacing (segplug-replacing 1.2), segplug_replacing", "active", "segplug_replacing.loss:Overlap"],
        ),
        ("dice_ce", ["replaced by replacing:dice_ce", "segplug.protocols.Loss (object style)", "in force"]),
        (
            "broken",
            ["broken: cannot be imported: ModuleNotFoundError: No module named 'a_library_that_is_not_installed'"],
        ),
        ("rival_a:middle", ["rival_a:middle among the schedules: a share of the learning rate", "conflict"]),
        ("nnUNetTrainer", ["builtin:nnunet among the trainers"]),
        ("greet", ["command\tgreet (segplug-greeting"]),
    ],
)
def test_show(everything: Any, name: str, expected: list[str]) -> None:
    done = everything.segplug("plugins", "show", name)
    assert done.returncode == 0, done.stderr
    for text in expected:
        assert text in done.stdout


def test_show_unknown(everything: Any) -> None:
    done = everything.segplug("plugins", "show", "nobody")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no plugin or component is called 'nobody'" in done.stderr


def test_pin_settles_conflicts(everything: Any, tmp_path: Path) -> None:
    (tmp_path / "segplug.toml").write_text(
        '[pins]\n"schedules.middle" = "rival_b:middle"\n"normalizers.zscore" = "builtin:zscore"\n'
        '"losses.dice_ce" = "builtin:dice_ce"\n'
    )
    done = everything.segplug("plugins", "list", "--format", "json", cwd=tmp_path)
    found = rows(done)
    assert "problem:" not in done.stderr
    assert found["schedules", "rival_b:middle"]["state"] == "in force"
    assert found["schedules", "rival_a:middle"]["state"] == "replaced by rival_b:middle"
    assert found["normalizers", "builtin:zscore"]["state"] == "in force"
    assert found["losses", "replacing:dice_ce"]["state"] == "replaced by builtin:dice_ce"


def test_blocked(everything: Any, tmp_path: Path) -> None:
    (tmp_path / "segplug.toml").write_text('[plugins]\nblock = ["rival_a", "shadowing", "absent"]\n')
    done = everything.segplug("plugins", "list", "--format", "json", cwd=tmp_path)
    found = rows(done)
    assert found["plugin", "rival_a"]["state"] == "blocked"
    assert ("schedules", "rival_a:middle") not in found
    assert found["schedules", "rival_b:middle"]["state"] == "in force"
    assert done.stderr.splitlines() == ["problem: [plugins] block: no plugin 'absent' is installed"]


def test_impostor_takes_no_name(install: Callable[..., Any], tmp_path: Path) -> None:
    environment = install("segplug-impostor", "segplug-listener")
    found = rows(environment.segplug("plugins", "list", "--format", "json"))
    states = {name: row["state"] for (kind, name), row in found.items() if kind == "plugin"}
    assert states == {
        "builtin@segplug-impostor": "broken",
        "listener@segplug-impostor": "broken",
        "listener@segplug-listener": "broken",
    }
    assert "also claimed by segplug-listener 0.5" in found["plugin", "listener@segplug-impostor"]["summary"]
    (tmp_path / "segplug.toml").write_text('[plugins]\nblock = ["listener@segplug-impostor"]\n')
    found = rows(environment.segplug("plugins", "list", "--format", "json", cwd=tmp_path))
    assert found["plugin", "listener@segplug-impostor"]["state"] == "blocked"
    assert found["plugin", "listener"]["distribution"] == "segplug-listener"
    assert found["plugin", "listener"]["state"] == "active"


BUILD = """
import sys
from segplug import open_project
from segplug.errors import SegplugError
with open_project(workers=0, pins=dict(pin.split("=") for pin in sys.argv[3:])) as project:
    try:
        built = project.kernel.registry.build(sys.argv[1], sys.argv[2])
    except SegplugError as error:
        print(error)
        raise SystemExit(error.exit_code)
print(f"{getattr(built, '__module__', None) or type(built).__module__}")
"""


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["losses", "dice_ce"], 0, "segplug_replacing.loss"),
        (["losses", "replacing:dice_ce"], 0, "segplug_replacing.loss"),
        (["schedules", "poly"], 0, "segplug_builtin.schedules"),
        (["schedules", "rival_a:middle"], 0, "segplug_rival_a"),
        (["schedules", "middle", "schedules.middle=rival_b:middle"], 0, "segplug_rival_b"),
        (["schedules", "middle"], 1, "both provide 'middle' among the schedules"),
        (["normalizers", "zscore"], 1, "without replaces=True"),
        (["normalizers", "ZScoreNormalization"], 1, "without replaces=True"),
        (["normalizers", "shadowing:zscore"], 0, "segplug_shadowing"),
        (["losses", "broken:focal"], 1, "The plugin 'broken' (segplug-broken 3.0) is broken: cannot be imported"),
        (["losses", "future:focal"], 1, "is incompatible: speaks plugin API version 99"),
    ],
)
def test_what_a_run_gets(everything: Any, arguments: list[str], code: int, expected: str) -> None:
    done = everything.run("-c", BUILD, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert expected in done.stdout


def test_listener_hears_and_fails_without_stopping_the_run(everything: Any, tmp_path: Path) -> None:
    program = (
        "from segplug import open_project\n"
        "with open_project(workers=0) as project, project.stage('preprocess', 'Dataset004_X', 2):\n"
        "    project.progress('preprocess', 'case_1', 1, 2)\n"
    )
    done = everything.run("-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "events.txt").read_text() == "started preprocess Dataset004_X\nfinished preprocess well\n"
    assert (
        "plugin 'listener' failed in segplug_stage_progress: RuntimeError: the tracking server is gone" in done.stderr
    )


START = """
from types import SimpleNamespace
from segplug.cli.shell import open_project
with open_project(SimpleNamespace(obj=None, command_path="segplug verify")):
    pass
"""


def test_a_run_begins_by_telling_each_replacement_in_one_line(everything: Any) -> None:
    done = everything.run("-c", START)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "the built-in 'ct' of the normalizers is replaced by 'ct' of plugin 'replacing' (segplug-replacing 1.2)",
        "the built-in 'dice_ce' of the losses is replaced by 'dice_ce' of plugin 'replacing' (segplug-replacing 1.2)",
    ]


def test_command_of_a_plugin(everything: Any) -> None:
    done = everything.segplug("greet", "Ada")
    assert (done.returncode, done.stdout) == (0, "hello Ada, 2 times\n"), done.stderr
    helped = everything.segplug("greet", "--help")
    assert "Greet somebody." in helped.stdout


MODULES = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
from segplug.cli.main import main
main()
"""


def test_help_names_plugin_commands_and_imports_nothing_heavy(everything: Any) -> None:
    done = everything.run("-c", MODULES, "--help")
    assert done.returncode == 0, done.stderr
    assert "Commands of plugins:\n  greet  from segplug-greeting 0.4\n" in done.stdout
    assert done.stdout.count("  train ") == 1
    imported = set(json.loads(done.stderr))
    assert "segplug.cli.main" in imported
    heavy = {"torch", "scipy", "numpy", "rich", "SimpleITK", "matplotlib", "pluggy"}
    assert not (heavy | {"segplug.kernel", "segplug_builtin", "segplug_greeting", "segplug_replacing"}) & imported


def test_help_is_quick(everything: Any) -> None:
    """By CPU time, the smallest of seven: other tests run beside this one."""
    seconds = []
    for _ in range(7):
        start = os.times()
        everything.segplug("--help")
        end = os.times()
        seconds.append(end.children_user + end.children_system - start.children_user - start.children_system)
    assert min(seconds) < 0.3, seconds


def test_listing_imports_no_heavy_library(everything: Any) -> None:
    done = everything.run("-c", MODULES, "plugins", "list")
    imported = set(json.loads(done.stderr.splitlines()[-1]))
    assert "segplug_replacing" in imported
    assert not {"torch", "scipy", "SimpleITK", "matplotlib", "segplug_replacing.loss"} & imported
