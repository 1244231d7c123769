"""The whole path on real data of every kind that there is: volumes, anisotropic volumes, scribbles, regions over two
channels, colour photographs, TIFF stacks. Nothing is set for any of them beyond the few iterations.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image as Picture

from segplug.kernel import Kernel
from segplug.model import Split
from segplug.protocols import PredictionSettings
from segplug.runtime.evaluation import read_summary
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.splits import write_splits
from segplug.runtime.workspace import Workspace
from segplug.stages.evaluate import evaluate
from segplug.stages.predict import predict_folder
from segplug.stages.run import Planning, Training, run

pytestmark = pytest.mark.slow

HELD_OUT = {
    "Dataset004_Hippocampus": ("hippocampus_024", "hippocampus_320"),
    "Dataset027_ACDC": ("patient001_frame01",),
    "Dataset028_ACDCscribbles": ("patient001_frame12",),
    "Dataset042_BraTS2015": ("pat0003",),
    "Dataset120_Nuclei": ("nuclei_000", "nuclei_001", "nuclei_053"),
    "Dataset130_DrosophilaVNC": ("vnc_3",),
}
CONFIGURATIONS = {"Dataset120_Nuclei": ("2d",)}
"""Those planned where it is not 2d and 3d_fullres."""

WRITABLE = {"Dataset042_BraTS2015": {0, 1, 2, 4}}
"""Labels a prediction may hold where they are not those of dataset.json: regions write those of regions_class_order."""

FEW = Training(
    overrides=("trainer.epochs=2", "trainer.iterations_per_epoch=4", "trainer.val_iterations_per_epoch=1"), device="cpu"
)
NO_MIRRORING = ("trainer.augmentation=nnunet", "trainer.augmentation.mirror=false")
NOT_MIRRORED = ("Dataset028_ACDCscribbles", "Dataset042_BraTS2015", "Dataset130_DrosophilaVNC")
"""In training, nor therefore when their validation cases are predicted: that took minutes."""

QUICK = PredictionSettings(step_size=1.0, mirroring=False, device="cpu")


@pytest.mark.parametrize("name", HELD_OUT)
def test_from_raw_images_to_scores(name, shared, tmp_path):
    raw = load_dataset(shared / "datasets" / name)
    workspace = Workspace(shared / "datasets", tmp_path / "preprocessed", tmp_path / "results")
    rest = tuple(case for case in raw.cases if case not in HELD_OUT[name])
    write_splits(workspace.splits_file(name), [Split(rest, HELD_OUT[name])])
    images = copy_images([raw.cases[case] for case in HELD_OUT[name]], raw, tmp_path / "images")
    training = replace(FEW, overrides=(*FEW.overrides, *NO_MIRRORING)) if name in NOT_MIRRORED else FEW
    with Project(workspace, Kernel(discover=False)) as project:
        done = run(project, name, planning=Planning(planner="compact"), training=training)
        assert [f.configuration for f in done.folds] == list(CONFIGURATIONS.get(name, ("2d", "3d_fullres")))
        for fold in done.folds:
            store = workspace.store_folder(name, done.plan.configurations[fold.configuration].data_identifier)
            assert {file.name.removesuffix(".case") for file in store.glob("*.case")} == set(raw.cases)
            predictions = tmp_path / "predictions" / fold.configuration
            result = predict_folder(project, images, predictions, fold.trained.model_folder, settings=QUICK)
            assert set(result.predicted) == set(HELD_OUT[name])
            check_predictions(raw, HELD_OUT[name], predictions)
            references = {case: raw.cases[case].label for case in HELD_OUT[name]}
            evaluation = evaluate(project, references, predictions, raw.description)
            assert list(evaluation.mean) == list(raw.description.labels.classes)
            assert all(c.metrics[t]["n_ref"] > 0 for c in evaluation.cases[:1] for t in c.metrics)
            assert read_summary(predictions / "summary.json").mean.keys() == evaluation.mean.keys()


def copy_images(cases, raw, folder):
    """As a user would hand them in: CASE_0000, CASE_0001, ... and what belongs to them."""
    folder.mkdir()
    for case in cases:
        for channel, image in enumerate(case.images):
            shutil.copyfile(image, folder / f"{case.name}_{channel:04d}{raw.description.file_ending}")
        spacing = case.images[0].with_name(f"{case.name}.json")
        if spacing.is_file():
            shutil.copyfile(spacing, folder / spacing.name)
    return folder


def check_predictions(raw, cases, folder):
    """Geometry and labels, read with other libraries than ours where there are any."""
    ending = raw.description.file_ending
    allowed = WRITABLE.get(raw.name, set(raw.description.labels.all_labels))
    for name in cases:
        image, prediction = raw.cases[name].images[0], folder / f"{name}{ending}"
        if ending == ".nii.gz":
            there, here = sitk.ReadImage(str(image)), sitk.ReadImage(str(prediction))
            for of in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
                assert getattr(here, of)() == getattr(there, of)(), of
            np.testing.assert_array_equal(nibabel.load(prediction).affine, nibabel.load(image).affine)
            array = sitk.GetArrayFromImage(here)
        elif ending == ".png":
            with Picture.open(image) as there, Picture.open(prediction) as here:
                assert (here.format, here.mode, here.size) == ("PNG", "L", there.size)
                array = np.asarray(here)
        else:
            array = tifffile.imread(prediction)
            assert array.shape == tifffile.imread(image).shape
        assert array.dtype == np.uint8
        assert set(np.unique(array).tolist()) <= allowed


MAIN = "from segplug.cli.main import main; main()"


def segplug(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=cwd
    )


@pytest.fixture(scope="module")
def model(shared: Path) -> Path:
    return shared / "reference" / "models" / "Dataset004_Hippocampus" / "nnUNetTrainer__nnUNetPlansSmall__3d_fullres"


def test_bad_images_do_not_stop_good_ones(shared, model, tmp_path):
    raw = load_dataset(shared / "datasets" / "Dataset004_Hippocampus")
    images = copy_images([raw.cases[c] for c in ("hippocampus_024", "hippocampus_038")], raw, tmp_path / "images")
    good = images / "hippocampus_024_0000.nii.gz"
    content = good.read_bytes()
    (images / "truncated_0000.nii.gz").write_bytes(content[: len(content) // 2])
    (images / "text_0000.nii.gz").write_text("no image")
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(good))).astype(np.float32)
    array[3, 4, 5] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(array), str(images / "undefined_0000.nii.gz"))
    shutil.copyfile(good, images / "two_channels_0000.nii.gz")
    shutil.copyfile(good, images / "two_channels_0001.nii.gz")

    out = tmp_path / "predictions"
    options = ("-m", model, "-f", "0", "--no-mirroring", "--device", "cpu")
    done = segplug("predict", "-i", images, "-o", out, *options, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "4 of 6 cases not predicted" in done.stderr
    for case in ("truncated", "text", "undefined", "two_channels"):
        assert case in done.stderr
    written = {file.name for file in out.glob("*.nii.gz")}
    assert written == {"hippocampus_024.nii.gz", "hippocampus_038.nii.gz"}
    check_predictions(raw, ["hippocampus_024", "hippocampus_038"], out)

    references = tmp_path / "references"
    references.mkdir()
    for case in ("hippocampus_024", "hippocampus_038", "hippocampus_040"):
        shutil.copyfile(raw.cases[case].label, references / f"{case}.nii.gz")
    done = segplug("evaluate", references, out, cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "hippocampus_040" in done.stderr
    done = segplug("evaluate", references, out, "--allow-missing", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[-1]["mean Dice"] > 0.8


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("predict", "-i", "nowhere", "-o", "out", "-m", "MODEL"), 2, "nowhere"),
        (("predict", "-i", "images", "-o", "out", "-m", "no-model"), 2, "no-model"),
        (("predict", "-i", "images", "-o", "out"), 2, "-m MODEL_FOLDER"),
        (("predict", "-i", "images", "-o", "out", "-m", "MODEL", "-f", "7"), 2, "fold"),
        (("evaluate", "nowhere", "images", "--labels", "1"), 1, "nowhere"),
        (("train", "999", "2d", "0"), 2, "999"),
        (("run", "999"), 2, "999"),
        (("run", "999", "--format", "picture"), 2, "picture"),
        (("preprocess", "999"), 2, "999"),
        (("plan", "999", "--planner", "compcat"), 2, "compact"),
        (("quickstart", "--set", "trainer.epoch=3", "--workers", "0"), 2, "epochs"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, code, message, model, tmp_path):
    (tmp_path / "images").mkdir()
    roots = [f"--{part}={tmp_path / part}" for part in ("raw", "preprocessed", "results")]
    (tmp_path / "raw").mkdir()
    done = segplug(*roots, *(str(model) if a == "MODEL" else a for a in arguments), cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert message in done.stderr
