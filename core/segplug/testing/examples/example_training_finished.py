"""Says how a training ended."""

from __future__ import annotations

import sys
from pathlib import Path

from segplug import hookimpl


@hookimpl
def segplug_training_finished(folder: Path, error: str) -> None:
    """Write a line."""
    sys.stderr.write(f"training in {folder.name}: {error or 'done'}\n")
