"""Exit codes, and errors without tracebacks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

import segplug
from segplug.cli import main as entry
from segplug.errors import DataError, UsageError


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        entry.main(list(arguments))
    return int(end.value.code or 0)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A command `evaluate` that raises what is put into it."""
    app = typer.Typer()
    what = SimpleNamespace(error=None)

    @app.command()
    def evaluate() -> None:
        raise what.error

    monkeypatch.setattr(entry, "import_module", lambda name: SimpleNamespace(app=app))
    return what


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"segplug {segplug.__version__}\n"
    assert run("--help") == 0
    text = capsys.readouterr().out
    for name, summary in entry.COMMANDS.items():
        assert f"  {name} " in text
        assert summary.split()[0] in text
    assert run("-h") == 0


@pytest.mark.parametrize(
    "arguments", [["tain"], ["--rw", "x", "plugins", "list"], ["plugins", "lits"], ["plugins", "show"]]
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DataError("case_1.nii.gz: truncated"), 1, "error: case_1.nii.gz: truncated\n"),
        (UsageError("no data set 7"), 2, "usage error: no data set 7\n"),
        (
            PermissionError(13, "Permission denied", "/data/out"),
            1,
            "error: /data/out: Permission denied. Check the path, its rights and the disk (--debug tells more)\n",
        ),
        (OSError(28, "No space left on device"), 1, "error: no space left on the disk. Make room and call again\n"),
        (MemoryError(), 1, "error: memory ran out. Free some, or use fewer --workers\n"),
        (KeyboardInterrupt(), 130, "interrupted; what is finished is kept, call again to go on\n"),
    ],
)
def test_what_a_user_can_mend_is_one_message(
    failing: SimpleNamespace, error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.error = error
    assert run("evaluate") == code
    assert capsys.readouterr().err.endswith(text)


def test_debug_and_bugs_keep_their_traceback(failing: SimpleNamespace) -> None:
    failing.error = DataError("case_1")
    with pytest.raises(DataError):
        entry.main(["--debug", "evaluate"])
    for bug in (ZeroDivisionError("ours"), OSError("without a file")):
        failing.error = bug
        with pytest.raises(type(bug)):
            entry.main(["evaluate"])


def test_settings_are_read_from_the_file_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text('[pins]\n"losses.dice_ce" = "gone:dice_ce"\n')
    assert run("--settings", str(tmp_path / "mine.toml"), "plugins", "list") == 0
    assert "problem: no component 'gone:dice_ce' among the losses" in capsys.readouterr().err
    assert run("--settings", str(tmp_path / "absent.toml"), "plugins", "list") == 2
