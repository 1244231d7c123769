"""Measures what was predicted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from segplug import hookimpl
from segplug.model import Prediction


@hookimpl
def segplug_case_predicted(case: str, prediction: Prediction, path: Path | None) -> None:
    """Write how much of the image is foreground."""
    share = np.count_nonzero(prediction.labels.array) / prediction.labels.array.size
    sys.stderr.write(f"{case}: {share:.1%} foreground, {path or 'in memory'}\n")
