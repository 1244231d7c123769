"""Says how a stage ended."""

from __future__ import annotations

import sys

from segplug import hookimpl


@hookimpl
def segplug_stage_finished(stage: str, subject: str, seconds: float, error: str) -> None:
    """Write a line."""
    sys.stderr.write(f"{stage} of {subject}: {error or 'done'} after {seconds:.0f} s\n")
