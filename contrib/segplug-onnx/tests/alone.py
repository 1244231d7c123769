"""Programs that find NumPy, SciPy and ONNX Runtime, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ALONE = ("numpy", "numpy.libs", "onnxruntime", "scipy", "scipy.libs")


def interpreter(folder: Path) -> Path:
    """A folder with links to them, for `run_alone`."""
    folder.mkdir()
    for root in (Path(entry) for entry in sys.path if Path(entry).name == "site-packages"):
        for name in ALONE:
            if (root / name).exists() and not (folder / name).exists():
                (folder / name).symlink_to(root / name)
    return folder


def run_alone(
    alone: Path, program: Path, *arguments: str | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program with what is in `alone`."""
    clean = {name: os.environ[name] for name in ("PATH", "HOME", "OMP_NUM_THREADS") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-S", program, *map(str, arguments)],
        env=clean | {"PYTHONPATH": str(alone)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
