"""Through the commands, on the bundled sample as DICOM series: prepare, train, predict to DICOM-SEG."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from segplug_dicom.images import read_dicom
from segplug_dicom.segmentations import write_dicom_seg

from segplug.model import Labels
from segplug.sample import DATASET, sample_root

CASES = 6
SHORT = ("--epochs", "1", "--set", "trainer.iterations_per_epoch=1", "--set", "trainer.val_iterations_per_epoch=1")


def segplug(folder: Path, *arguments: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("nnUNet", "SEGPLUG"))}
    command = [sys.executable, "-m", "segplug", *arguments]
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def project(make_series: Any, tmp_path: Path) -> Path:
    """Data set 4 with images as folders of slices and label maps as DICOM-SEG."""
    source, target = sample_root() / DATASET, tmp_path / "raw" / DATASET
    (target / "labelsTr").mkdir(parents=True)
    for label in sorted((source / "labelsTr").iterdir())[:CASES]:
        case = label.name.removesuffix(".nii.gz")
        image = sitk.ReadImage(str(source / "imagesTr" / f"{case}_0000.nii.gz"))
        array = np.round(sitk.GetArrayFromImage(image)).astype(np.int16)
        folder = target / "imagesTr" / f"{case}_0000.dcm"
        make_series(folder, array, spacing=(1.0, 1.0, 1.0), modality="MR", intercept=0.0)
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(label))).astype(np.uint8)
        write_dicom_seg(target / "labelsTr" / f"{case}.dcm", Labels(labels, read_dicom([folder]).geometry))
    described = json.loads((source / "dataset.json").read_text()) | {"file_ending": ".dcm", "numTraining": CASES}
    (target / "dataset.json").write_text(json.dumps(described))
    (tmp_path / "segplug.toml").write_text(
        '[paths]\nraw = "raw"\npreprocessed = "preprocessed"\nresults = "results"\n[defaults]\nworkers = 0\n'
    )
    return tmp_path


def test_from_series_to_dicom_seg(project: Path) -> None:
    segplug(project, "dataset", "verify", "4")
    segplug(project, "prepare", "4", "--planner", "compact", "-c", "3d_fullres")
    segplug(project, "train", "4", "3d_fullres", "0", "--device", "cpu", *SHORT, "--plans-name", plans_of(project))
    model = next((project / "results" / DATASET).iterdir())
    images = project / "raw" / DATASET / "imagesTr"
    segplug(project, "predict", "-i", str(images), "-o", "out", "-m", str(model), "--device", "cpu", "--no-mirroring")
    found = sorted((project / "out").glob("*.dcm"))
    assert len(found) == CASES
    for file in found:
        image, labels = read_dicom([images / f"{file.stem}_0000.dcm"]), read_dicom([file])
        assert labels.array.shape == image.array.shape
        assert labels.geometry.origin == pytest.approx(image.geometry.origin, abs=1e-4)
        called = [each.SegmentLabel for each in dcmread(file).SegmentSequence]
        assert called == ["Anterior", "Posterior"][: len(called)]
    segplug(project, "evaluate", f"raw/{DATASET}/labelsTr", "out", "--dataset-json", f"raw/{DATASET}/dataset.json")
    assert (project / "out" / "summary.json").is_file()


def plans_of(project: Path) -> str:
    """Name of the plans that were made."""
    folder = project / "preprocessed" / DATASET
    return next(file.stem for file in folder.glob("*Plans*.json"))
