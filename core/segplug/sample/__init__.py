"""The bundled sample: 24 Hippocampus cases, CC BY-SA 4.0 (see ATTRIBUTION.md beside them)."""

from __future__ import annotations

from pathlib import Path

DATASET = "Dataset004_Hippocampus"


def sample_root() -> Path:
    """Folder that holds the raw data set `DATASET`; to be read only."""
    return Path(__file__).resolve().parent
