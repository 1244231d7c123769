"""What a model says about an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.model.image import Labels


@dataclass(frozen=True)
class Prediction:
    """Predicted labels in the geometry of the input image.

    `probabilities`, if they were asked for, are float16 or float32 (classes, z, y, x), possibly mapped from disk; for a
    data set with regions, one channel per region.

    `next_stage` has the labels once more for each configuration that builds on this one (a cascade), at the shape of
    its preprocessed image (z, y, x in the plan's order of axes); only where the validation of a training asks for it.
    """

    labels: Labels
    probabilities: NDArray[np.floating] | None = None
    next_stage: Mapping[str, NDArray[np.integer[Any]]] = field(default_factory=dict)
