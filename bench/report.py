"""What every benchmark ends with: its figures, the machine and the versions, in one JSON file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segplug.runtime.machine import PACKAGES, describe_machine, describe_versions

FOLDER = Path(__file__).resolve().parent.parent / "bench-results"


def write(name: str, figures: Mapping[str, Any], versions: Mapping[str, str] | None = None) -> Path:
    """Write `bench-results/<name>.json` and return its path.

    Args:
        figures: JSON values, with units in their names.
        versions: further ones than of the packages of this environment.
    """
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    report = {
        "name": name,
        "figures": dict(figures),
        "machine": describe_machine(),
        "versions": {**describe_versions((*PACKAGES, "nnunetv2")), **(versions or {})},
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    path.write_text(json.dumps(report, indent=4), encoding="utf-8")
    return path
