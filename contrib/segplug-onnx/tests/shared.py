"""Trained models and what nnunetv2 predicts with them, in the folder that SEGPLUG_SHARED names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

DATASET = "Dataset004_Hippocampus"


def shared() -> Path:
    """The folder; the test is skipped where there is none."""
    folder = Path(os.environ.get("SEGPLUG_SHARED", Path(__file__).parents[4] / "shared"))
    if not (folder / "reference" / "models").is_dir():
        pytest.skip(f"{folder}: no trained models (SEGPLUG_SHARED)")
    return folder


def reference_model(name: str, target: Path) -> Path:
    """A copy of a trained model's folder, as predictors write into it."""
    return shutil.copytree(shared() / "reference" / "models" / DATASET / name, target / name)
