"""The script that measures runs, and its table has every engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from segplug.sample import DATASET, sample_root

from .models import Recipe


def test_it_prints_a_table(tmp_path: Path) -> None:
    model = Recipe(patch=(16, 24, 16)).write(tmp_path)
    for file in sorted((sample_root() / DATASET / "imagesTr").iterdir())[:2]:
        (tmp_path / "images").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "images")
    script = Path(__file__).parents[1] / "speed.py"
    labels = ("--labels", sample_root() / DATASET / "labelsTr", "--patches", "2", "--calibration", "2")
    command = [sys.executable, script, model, tmp_path / "images", *labels]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")][2:]
    table = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert len(table) == 7
    assert float(table["ONNX Runtime fp32"][2]) >= 0.9999
    assert float(table["OpenVINO fp32"][2]) >= 0.9999
    assert 0 < float(table["OpenVINO int8"][2]) < 1
    assert all(float(row[0]) > 0 and float(row[1]) > 0 for row in table.values())
    assert 0 <= float(table["ONNX Runtime int8"][3]) <= 1
