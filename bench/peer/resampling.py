"""Run by the Python of nnunetv2's environment: python resampling.py IN.npy OUT.npy image|labels Z Y X."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent / "own"))


def main(source: str, target: str, what: str, *shape: str) -> None:
    from figures import timed, write
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    array, new_shape = np.load(source), tuple(map(int, shape))
    options = {"is_seg": what == "labels", "order": 1 if what == "labels" else 3, "order_z": 0}
    figures, result = timed(
        lambda: resample_data_or_seg_to_shape(
            array, new_shape, (1.0, 1.0, 1.0), (0.8, 0.8, 0.8), force_separate_z=None, **options
        ),
        tries=1,
    )
    np.save(target, result)
    write(figures)


if __name__ == "__main__":
    main(*sys.argv[1:])
