"""What a model says about an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segplug.model.image import Labels


@dataclass(frozen=True)
class Prediction:
    """Predicted labels in the geometry of the input image.

    `probabilities`, if they were asked for, are float16 or float32 (classes, z, y, x), possibly mapped from disk; for a
    data set with regions, one channel per region.
    """

    labels: Labels
    probabilities: NDArray[np.floating] | None = None
