"""Says when a stage starts."""

from __future__ import annotations

import sys

from segplug import hookimpl


@hookimpl
def segplug_stage_started(stage: str, subject: str, total: int) -> None:
    """Write a line."""
    sys.stderr.write(f"{stage} of {subject} starts, {total or 'unknown'} steps\n")
