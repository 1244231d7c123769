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
from segplug_builtin.planners.resampling import NONE, SLICES_APART, TOGETHER
from segplug_builtin.planners.rules import Resampling

pytestmark = pytest.mark.parity

Make = Callable[..., Path]
REGIONS = (("background", 0), ("whole", (1, 2)), ("core", 2))


KINDS: dict[str, dict[str, Any]] = {
    "two folds, mirroring, transposed": {
        "folds": (0, 1),
        "mirror_axes": (0, 2),
        "transpose": (1, 2, 0),
        "patch_size": (16, 24, 16),
    },
    "regions, resampled": {"spacing": (1.5, 1.0, 0.7), "labels": REGIONS, "regions_class_order": (1, 2)},
    "2d, resampled": {"patch_size": (16, 24), "mirror_axes": (0, 1), "spacing": (1.0, 0.8, 1.3)},
    "anisotropic, two channels": {"spacing": (5.0, 1.0, 1.0), "channels": 2},
    "resampled by torch": {"spacing": (1.5, 1.2, 0.7), "resampling": TOGETHER},
    "anisotropic, resampled by torch slice by slice": {"spacing": (5.0, 0.8, 1.3), "resampling": SLICES_APART},
    "regions, not resampled": {
        "spacing": (1.5, 1.0, 0.7),
        "resampling": Resampling(NONE, NONE, NONE),
        "labels": REGIONS,
        "regions_class_order": (1, 2),
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_predictions(
    project: Project,
    make_model: Make,
    make_image: Make,
    peer: Path,
    parity: Callable[..., None],
    tmp_path: Path,
    kind: str,
) -> None:
    changes = KINDS[kind]
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
        what = f"random weights, {kind}, nnunetv2's sums made float32"
        unlike = float(np.mean(arrays[0] != arrays[1]))
        parity(f"{what}: share of voxels with another label", 1, unlike, 1e-4, section="Prediction")
        chances = [np.load(p.with_name(f"case_{number}.npz"))["probabilities"] for p in (ours, theirs)]
        assert chances[0].dtype == chances[1].dtype
        most = float(np.abs(chances[0] - chances[1]).max())
        parity(f"{what}: probabilities", 1, most, 1e-4, section="Prediction")
