"""A volume beyond the limit of memory, through the command, beside its ordinary prediction."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LIMIT = 0.7
"""GB: above what Python, torch, zarr and the model take, below what the volume takes in memory beside them."""


def test_beyond_the_limit(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "large_volume.py"
    size = ("--shape", "700", "320", "300", "--limit", str(LIMIT), "--normalizer", "ZScoreNormalization", "--compare")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), *size], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert found["peak_gb"] < LIMIT < found["ordinary"]["peak_gb"]
    assert found["voxel_agreement"] > 0.9999
