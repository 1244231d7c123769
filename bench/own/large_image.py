"""Write a data set of one large image: python large_image.py FOLDER DATASET [Z] Y X."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from segplug.testing.phantoms import write_volumes


def main(folder: str, dataset: str, *sizes: str) -> None:
    shape = tuple(map(int, sizes))
    root = Path(folder) / "raw" / dataset
    image, labels = root / "imagesTr" / "case_0000", root / "labelsTr" / "case"
    for path in (image, labels):
        path.parent.mkdir(parents=True)
    random = np.random.default_rng(0)
    values = random.integers(60, 140, shape, dtype=np.uint8)
    marks = np.zeros(shape, np.uint8)
    for label in (1, 2):
        marks[tuple(slice(label * n // 4, label * n // 4 + n // 8) for n in shape)] = label
    values[marks > 0] += 40
    ending = ".png" if len(shape) == 2 else ".nii.gz"
    if len(shape) == 2:
        from PIL import Image

        Image.fromarray(values).save(f"{image}{ending}")
        Image.fromarray(marks).save(f"{labels}{ending}")
    else:
        write_volumes({Path(f"{image}{ending}"): values}, (1.0, 1.0, 1.0))
        write_volumes({Path(f"{labels}{ending}"): marks}, (1.0, 1.0, 1.0))
    described = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "a": 1, "b": 2},
        "numTraining": 1,
        "file_ending": ending,
    }
    (root / "dataset.json").write_text(json.dumps(described), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
