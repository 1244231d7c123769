"""Plugins that are broken, blocked or in conflict, and their commands, as the command line tells of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segplug.cli import main as entry

LOSS = """
from segplug import Component, hookimpl

@hookimpl
def segplug_losses():
    yield Component("{0}_loss", "segplug_{0}.loss:Loss", "")
"""
COMMAND = """
import typer
print("{0} was imported")
app = typer.Typer()

@app.command()
def run() -> None:
    print("{0} ran")
"""


def install(folder: Path, name: str, code: str, plugin: str = "", command: str = "") -> None:
    """A distribution as pip leaves it."""
    package = folder / f"segplug_{name}"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    (package / "command.py").write_text(COMMAND.format(name))
    facts = folder / f"segplug_{name}-0.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: segplug-{name}\nVersion: 0.1\n")
    points = f"[segplug]\n{plugin} = segplug_{name}\n" if plugin else ""
    points += f"[segplug.commands]\n{command} = segplug_{name}.command:app\n" if command else ""
    (facts / "entry_points.txt").write_text(points)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def segplug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line with a broken plugin, two in conflict, and one with a command that `block` may name."""
    libraries = tmp_path / "libraries"
    install(libraries, "noisy", 'raise ImportError("first line\\n\\n  second\\tline")', "noisy")
    install(libraries, "twin_a", LOSS.format("twin_a"), "twin")
    install(libraries, "twin_b", LOSS.format("twin_b"), "twin")
    install(libraries, "closed", LOSS.format("closed"), "closed", "shut")
    install(libraries, "alone", "", command="alone")
    monkeypatch.syspath_prepend(str(libraries))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, block: tuple[str, ...] = ()) -> tuple[int, str, str]:
        for name in [name for name in sys.modules if name.startswith("segplug_closed")]:
            del sys.modules[name]  # as in a new process
        (tmp_path / "segplug.toml").write_text(f"[plugins]\nblock = {list(block)}\n")
        with pytest.raises(SystemExit) as end:
            entry.main(list(arguments))
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


ALL = ("noisy", "twin", "closed")


def test_check_skips_what_is_blocked_on_purpose(segplug: Run) -> None:
    code, out, err = segplug("plugins", "check", "--format", "json", block=ALL)
    assert code == 0, err
    rows = json.loads(out)
    assert {row["component"] for row in rows} == {"noisy", "twin@segplug-twin_a", "twin@segplug-twin_b", "closed"}
    assert {row["state"] for row in rows} == {"skipped"}
    assert all("blocked in the settings" in row["found"] for row in rows)
    for name in ("closed", "closed:closed_loss", "segplug-closed"):
        code, out, _ = segplug("plugins", "check", name, block=ALL)
        assert code == 1
        assert "\tfailed\t" in out


@pytest.mark.parametrize("command", ["show", "check"])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("noisy", ["ImportError: first line second line"]),
        ("noisy:loss", ["ImportError: first line second line"]),
        ("twin", ["also claimed by segplug-twin_a 0.1", "also claimed by segplug-twin_b 0.1"]),
        ("twin:twin_a_loss", ["also claimed by segplug-twin_b 0.1"]),
        ("twin@segplug-twin_a", ["also claimed by segplug-twin_b 0.1"]),
        ("closed:closed_loss", ["blocked in the settings"]),
    ],
)
def test_show_and_check_tell_why_a_plugin_is_not_there(segplug: Run, command: str, name: str, told: list[str]) -> None:
    code, out, err = segplug("plugins", command, name, block=("closed",))
    assert code == (1 if command == "check" else 0), err
    assert not [text for text in told if text not in out], out


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_name_of_nothing_counts_what_cannot_be_used(segplug: Run, command: str) -> None:
    code, _, err = segplug("plugins", command, "twinn")
    assert code == 2
    assert err.endswith("shows what there is, and the plugins that cannot be used (3)\n")


def test_one_of_two_that_is_blocked_does_not_fail_the_other(segplug: Run) -> None:
    code, out, _ = segplug("plugins", "show", "twin", block=("twin@segplug-twin_a",))
    assert code == 0
    assert "state\tblocked: " in out
    assert "state\tactive" in out


def test_list_of_a_kind_has_the_plugins_whose_kinds_are_unknown(segplug: Run) -> None:
    code, out, _ = segplug("plugins", "list", "--kind", "losses")
    assert code == 0
    plugins = {line.split("\t")[1]: line.split("\t") for line in out.splitlines() if line.startswith("plugin\t")}
    assert set(plugins) == {"noisy", "twin@segplug-twin_a", "twin@segplug-twin_b"}
    assert plugins["noisy"][5:] == ["broken", "cannot be imported: ImportError: first line second line"]
    assert len({line.count("\t") for line in out.splitlines()}) == 1
    _, out, _ = segplug("plugins", "list", "--kind", "losses", "--format", "json")
    assert "first line\n\n  second\tline" in next(r["summary"] for r in json.loads(out) if r["name"] == "noisy")


@pytest.mark.parametrize("block", ["closed", "closed@segplug-closed"])
def test_the_command_of_a_blocked_plugin_does_not_run(segplug: Run, block: str) -> None:
    code, out, _ = segplug("shut")
    assert (code, out) == (0, "closed was imported\nclosed ran\n")
    for arguments in (["shut"], ["shut", "--help"], ["--settings", "segplug.toml", "shut"]):
        code, out, err = segplug(*arguments, block=(block,))
        assert (code, out) == (1, "")
        assert "error: command 'shut' is of plugin 'closed' (segplug-closed 0.1), which is blocked in the" in err
    _, out, _ = segplug("--help", block=(block,))
    assert "shut   from segplug-closed 0.1 (blocked)\n" in out
    assert "alone  from segplug-alone 0.1\n" in out
    _, out, _ = segplug("plugins", "show", "shut", block=(block,))
    assert "state\tblocked, as plugin 'closed' is\n" in out
    assert segplug("alone", block=(block,))[0] == 0


def test_help_is_there_whatever_the_settings_are(segplug: Run, tmp_path: Path) -> None:
    segplug("--version")
    (tmp_path / "bad.toml").write_text("[nonsense]\n")
    code, out, _ = segplug("--settings", "bad.toml", "--help")
    assert code == 0
    assert "from segplug-closed 0.1\n" in out
    code, _, err = segplug("--settings", "bad.toml", "shut")
    assert code == 2
    assert "no table is called 'nonsense'" in err
