"""What every benchmark ends with: its figures, the machine and the versions, in one JSON file."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "bench-results"
PACKAGES = ("segplug", "torch", "numpy", "scipy", "blosc2", "SimpleITK", "nnunetv2")


def write(name: str, figures: Mapping[str, Any]) -> Path:
    """Write `bench-results/<name>.json` and return its path. `figures` are JSON values, with units in their names."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    report = {
        "name": name,
        "figures": dict(figures),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **versions},
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    path.write_text(json.dumps(report, indent=4), encoding="utf-8")
    return path


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
