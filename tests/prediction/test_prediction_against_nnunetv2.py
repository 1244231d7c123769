"""nnunetv2 reads segplug's model folders and predicts the same."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from segplug.protocols import PredictionSettings
from segplug.runtime.project import Project
from segplug.stages.predict import predict_folder

pytestmark = pytest.mark.parity

Make = Callable[..., Path]
REGIONS = (("background", 0), ("whole", (1, 2)), ("core", 2))


@pytest.mark.parametrize(
    "changes",
    [
        {"folds": (0, 1), "mirror_axes": (0, 2), "transpose": (1, 2, 0), "patch_size": (16, 24, 16)},
        {"spacing": (1.5, 1.0, 0.7), "labels": REGIONS, "regions_class_order": (1, 2)},
        {"patch_size": (16, 24), "mirror_axes": (0, 1), "spacing": (1.0, 0.8, 1.3)},
        {"spacing": (5.0, 1.0, 1.0), "channels": 2},
    ],
    ids=["folds, mirroring, transposed", "regions, resampled", "2d", "anisotropic, two channels"],
)
def test_the_same_predictions(
    project: Project, make_model: Make, make_image: Make, peer: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = make_model(**changes)
    for number, shape in enumerate([(7, 25, 30), (9, 21, 18)]):
        for channel in range(changes.get("channels", 1)):
            path = tmp_path / "in" / f"case_{number}_{channel:04d}.nii.gz"
            make_image(path, shape, seed=2 * number + channel, spacing=(2.0, 1.0, 1.1))
    settings = PredictionSettings(device="cpu", precision="fp32", save_probabilities=True)
    predict_folder(project, tmp_path / "in", tmp_path / "ours", model, settings=settings)
    (tmp_path / "theirs").mkdir()
    script = Path(__file__).with_name("peer_predict.py")
    folds = [str(f) for f in changes.get("folds", (0,))]
    environment = {f"nnUNet_{name}": str(tmp_path) for name in ("raw", "preprocessed", "results")}
    subprocess.run(
        [peer, script, model, tmp_path / "in", tmp_path / "theirs", *folds],
        check=True,
        env=environment,
        capture_output=True,
    )
    for number in range(2):
        ours, theirs = (tmp_path / who / f"case_{number}.nii.gz" for who in ("ours", "theirs"))
        arrays = [sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (ours, theirs)]
        assert np.mean(arrays[0] == arrays[1]) >= 0.9999
        chances = [np.load(p.with_name(f"case_{number}.npz"))["probabilities"] for p in (ours, theirs)]
        assert chances[0].dtype == chances[1].dtype
        np.testing.assert_allclose(*chances, rtol=0, atol=1e-4)
