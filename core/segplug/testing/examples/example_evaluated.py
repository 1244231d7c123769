"""Says how good predictions are."""

from __future__ import annotations

import sys
from pathlib import Path

from segplug import hookimpl
from segplug.model import Evaluation


@hookimpl
def segplug_evaluated(folder: Path, evaluation: Evaluation) -> None:
    """Write the mean Dice of each class."""
    scores = ", ".join(f"{target}: {metrics['Dice']:.3f}" for target, metrics in evaluation.mean.items())
    sys.stderr.write(f"{folder.name}: {scores}\n")
