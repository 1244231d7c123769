"""Says what was chosen, and from what."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from segplug import hookimpl
from segplug.model import Choice


@hookimpl
def segplug_model_chosen(choice: Choice, scores: Mapping[str, float]) -> None:
    """Write a line for each model or pair, and the choice."""
    for name, dice in scores.items():
        sys.stderr.write(f"{name}: {dice:.3f}\n")
    sys.stderr.write(f"chosen: {' + '.join(member.name for member in choice.members)}\n")
