"""Ctrl-C at any moment ends with one line and 130, or not at all once the work is done; never with a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segplug.cli.main import main
from segplug.testing.phantoms import Phantom, write_phantom_dataset

LINE = "interrupted; what is finished is kept, call again to go on\n"
MAIN = "from segplug.cli import main as module; "


def started(program: str, *arguments: str) -> subprocess.Popen[str]:
    """The program, with Python's own reaction to SIGINT (shells may ignore it) and a process group of its own."""
    begin = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); print('begun', flush=True); "
    process = subprocess.Popen(
        [sys.executable, "-c", begin + program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("after", [0.0, 0.3, 0.8])
def test_while_workers_read(after: float, tmp_path: Path) -> None:
    folder = tmp_path / "Dataset501_Phantom"
    folder.mkdir()
    write_phantom_dataset(folder, Phantom(shape=(40, 60, 60)), cases=12)
    process = started(MAIN + "print('imported', flush=True); module.main()", "dataset", "verify", str(folder))
    assert process.stdout is not None
    assert process.stdout.readline() == "imported\n"
    time.sleep(0.2 + after)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    if process.returncode != 0:  # it may have been quicker
        assert process.returncode == 130
        assert errors.endswith(LINE)
    assert "Traceback" not in errors


def test_after_the_work_is_done() -> None:
    """As torch does, a library may take its time at exit."""
    program = MAIN + "import atexit, time; atexit.register(lambda: (print('ending', flush=True), time.sleep(1))); "
    process = started(program + "module.main()", "--version")
    assert process.stdout is not None
    while process.stdout.readline() != "ending\n":
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_cleaning_up_may_fail_after_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C within an import leaves a module half made; what then uses it in a `finally` fails in its own way."""

    def interrupted(**_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise AttributeError("module 'sympy' has no attribute 'printing'")

    monkeypatch.setattr("segplug.cli.main.app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["train"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == LINE


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise AttributeError("a bug")

    monkeypatch.setattr("segplug.cli.main.app", broken)
    with pytest.raises(AttributeError, match="a bug"):
        main(["train"])
