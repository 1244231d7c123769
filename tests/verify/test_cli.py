"""`segplug dataset verify` as a user meets it: exit codes, one line a finding, never a traceback."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segplug.cli.main import main


def verify(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    try:
        main(["dataset", "verify", "--workers", "0", *map(str, arguments)])
        code: Any = 0
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_sound_data_set(sample: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = verify(capsys, sample.folder)
    assert code == 0
    assert out == "Dataset001_Sample: 3 cases read with SimpleITKIO: no problem\n"


def test_one_plain_line_per_finding(sample: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for case in ("case_1", "case_3"):
        sample.image(case).write_bytes(sample.image(case).read_bytes()[:-20])
    sample.write_label("case_2", np.zeros((8, 7, 6), np.uint8))
    code, out, err = verify(capsys, sample.folder)
    lines = out.splitlines()
    assert code == 1
    assert len(lines) == 4
    assert lines[0].startswith(f"error: case_1: {sample.image('case_1')}: unreadable file: found truncated")
    assert lines[1].startswith(f"warning: case_2: {sample.label('case_2')}: no foreground: found only label 0")
    assert lines[2].startswith(f"error: case_3: {sample.image('case_3')}")
    assert lines[3] == "Dataset001_Sample: 3 cases read with SimpleITKIO: 2 errors, 1 warning"
    assert "Traceback" not in err


def test_warnings_alone_are_no_failure(sample: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sample.write_label("case_2", np.zeros((8, 7, 6), np.uint8))
    code, out, _ = verify(capsys, sample.folder)
    assert code == 0
    assert out.endswith(": 1 warning\n")


def test_json(sample: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sample.label("case_2").unlink()
    code, out, _ = verify(capsys, sample.folder, "--format", "json")
    (finding,) = json.loads(out)
    assert code == 1
    assert finding["kind"] == "missing label"
    assert finding["file"] == str(sample.label("case_2"))
    assert set(finding) == {"kind", "case", "file", "found", "expected", "remedy", "severity"}


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"labels": 3}'])
def test_a_broken_description(content: str, sample: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (sample.folder / "dataset.json").write_text(content)
    code, out, _ = verify(capsys, sample.folder)
    assert code == 1
    assert "dataset.json" in out


@pytest.mark.parametrize("name", ["4", "Dataset004_Hippocampus"])
def test_an_unknown_data_set_is_wrong_usage(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    code, _, err = verify(capsys, name)
    assert code == 2
    assert name in err


def test_a_table_in_a_terminal(sample: Any) -> None:
    """Whole names and paths, whatever the width: folded at most."""
    sample.image("case_1").write_bytes(b"")
    controller, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": "70", "TERM": "dumb"}
    command = [sys.executable, "-c", "from segplug.cli.main import main; main()", "dataset", "verify", "--workers", "0"]
    process = subprocess.run(
        [*command, str(sample.folder)], stdout=terminal, stderr=subprocess.DEVNULL, env=environment, check=False
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(controller, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(controller)
    text = shown.decode()
    assert process.returncode == 1
    assert "unreadable file" in text
    assert "1 error" in text
    cells = [line.split("│")[3].strip() for line in text.splitlines() if line.count("│") == 4]
    assert str(sample.image("case_1")) in "".join(cells)


def test_real_data(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = verify(capsys, shared / "datasets/Dataset120_Nuclei")
    assert (code, out) == (0, "Dataset120_Nuclei: 54 cases read with NaturalImage2DIO: no problem\n")
