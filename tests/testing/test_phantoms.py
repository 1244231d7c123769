"""The phantoms are what their description says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segplug.testing import Phantom, make_case, write_phantom_dataset


def test_same_seed_same_case_other_number_other_case() -> None:
    first, labels, spacing = make_case(Phantom(), seed=3, number=1)
    again, labels_again, spacing_again = make_case(Phantom(), seed=3, number=1)
    assert np.array_equal(first, again)
    assert np.array_equal(labels, labels_again)
    assert spacing == spacing_again
    other, _, _ = make_case(Phantom(), seed=3, number=2)
    assert other.shape != first.shape or not np.array_equal(other, first)


@pytest.mark.parametrize(
    "phantom",
    [
        Phantom(),
        Phantom(channels=("CT",), spacing_spread=1.3),
        Phantom(channels=("T1", "T2"), regions=True, classes=3),
        Phantom(ignored=0.6),
        Phantom(shape=(1, 48, 40), file_ending=".png"),
        Phantom(shape=(6, 48, 40), spacing=(8.0, 1.0, 1.0), file_ending=".tif"),
    ],
)
def test_data_set_holds_the_labels_it_names(tmp_path: Path, phantom: Phantom) -> None:
    folder = write_phantom_dataset(tmp_path / "Dataset900_Phantom", phantom, cases=3, test_cases=1)
    description = json.loads((folder / "dataset.json").read_text())
    named = {n for v in description["labels"].values() for n in (v if isinstance(v, list) else [v])}
    assert len(list((folder / "imagesTr").glob(f"*{phantom.file_ending}"))) == 3 * len(phantom.channels)
    assert len(list((folder / "labelsTs").glob(f"*{phantom.file_ending}"))) == 1
    found = set()
    for path in sorted((folder / "labelsTr").glob(f"*{phantom.file_ending}")):
        found |= set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))).tolist())
    assert found == named


def test_ct_has_air_and_organs_apart() -> None:
    image, labels, _ = make_case(Phantom(channels=("CT",)))
    assert image.min() < -900
    assert image[0][labels == 1].mean() < image[0][labels == 2].mean() - 30
