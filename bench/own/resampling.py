"""Resample an array with segplug: python resampling.py IN.npy OUT.npy image|labels Z Y X."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from figures import timed, write

from segplug.kernel import Kernel
from segplug.model import ComponentRef

NNUNET_NAME = "resample_data_or_seg_to_shape"


def main(source: str, target: str, what: str, *shape: str) -> None:
    options = {"is_seg": what == "labels", "order": 1 if what == "labels" else 3, "order_z": 0}
    resample = Kernel(discover=False).registry.build(
        "resamplers", ComponentRef(NNUNET_NAME, {**options, "force_separate_z": None})
    )
    array, new_shape = np.load(source), tuple(map(int, shape))
    figures, result = timed(lambda: resample(array, new_shape, (1.0, 1.0, 1.0), (0.8, 0.8, 0.8)))
    np.save(Path(target), result)
    write(figures)


if __name__ == "__main__":
    main(*sys.argv[1:])
