"""What every augmentation does last."""

from __future__ import annotations

from dataclasses import replace

from segplug.protocols import Batch


def without_outside(batch: Batch) -> Batch:
    """Labels -1 (outside the image or the nonzero mask) become background 0, as nnU-Net does, also in `previous`."""
    previous = None if batch.previous is None else batch.previous.clamp(min=0)
    return replace(batch, target=batch.target.clamp(min=0), previous=previous)
