"""MONAI's networks and losses through the commands, on the sample that comes with segplug."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from segplug.sample import DATASET

from .conftest import Segplug

SWIN = "segplugMonaiSwinUNETRPlans"
SEGRES = "segplugMonaiSegResNetPlans"
DYN = "segplugMonaiDynUNetPlans"
SMALL_SWIN = {"network": "monai_swinunetr", "network.feature_size": 12, "batch_size": 2}
SMALL_UNETR = {
    "network": "monai_unetr",
    "network.feature_size": 4,
    "network.hidden_size": 48,
    "network.mlp_dim": 64,
    "network.num_heads": 4,
    "batch_size": 2,
}


@pytest.fixture(scope="module")
def prepared(segplug: Segplug) -> Segplug:
    """With plans for every network, the images that all of them share, and a fold that validates one case."""
    segplug("fingerprint", "4", "--workers", "0")
    for name in ("dynunet", "segresnet", "unetr", "swinunetr"):
        segplug("plan", "4", "--planner", f"monai_{name}")
    segplug("preprocess", "4", "-p", SEGRES, "--workers", "0")
    names = sorted(file.name.partition(".")[0] for file in (segplug.raw / DATASET / "labelsTr").iterdir())
    splits = [{"train": names[1:], "val": names[:1]}]
    (segplug.folder / "preprocessed" / DATASET / "splits_final.json").write_text(json.dumps(splits))
    return segplug


@pytest.fixture(scope="module")
def model(prepared: Segplug) -> Path:
    """SegResNet in 3D, trained with Tversky's loss."""
    settings = {"loss": "monai_tversky", "loss.alpha": 0.4, "network.init_filters": 8}
    return prepared.train("3d_fullres", SEGRES, {"network": "monai_segresnet", **settings})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, prepared: Segplug) -> Path:
    """Two cases to predict."""
    folder = tmp_path_factory.mktemp("images")
    for file in sorted((prepared.raw / DATASET / "imagesTr").iterdir())[:2]:
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def predicted(prepared: Segplug, model: Path, images: Path) -> dict[str, np.ndarray]:
    return predict(prepared, images, model)


def predict(segplug: Segplug, images: Path, model: Path | str) -> dict[str, np.ndarray]:
    """Label maps by case, from a model's folder."""
    out = segplug.folder / "predictions"
    shutil.rmtree(out, ignore_errors=True)
    segplug("predict", "-i", images, "-o", out, "-m", model, "-f", "0", "--device", "cpu", "--precision", "fp32")
    return {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in sorted(out.glob("*.nii.gz"))}


def used(model: Path) -> dict[str, str]:
    """What stood behind each kind of component when a model was trained, as its checkpoint records it."""
    record = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=True)["segplug"]["provenance"]
    return {each["kind"]: f"{each['distribution']} {each['version']} {each['name']}" for each in record}


def test_all_plans_share_nnunet_s_images(prepared: Segplug) -> None:
    folder = prepared.folder / "preprocessed" / DATASET
    for plans in (SWIN, SEGRES, DYN, "segplugMonaiUNETRPlans"):
        plan = json.loads((folder / f"{plans}.json").read_text())
        assert {c["data_identifier"] for c in plan["configurations"].values()} == {
            "nnUNetPlans_2d",
            "nnUNetPlans_3d_fullres",
        }


def test_a_trained_network_predicts(prepared: Segplug, model: Path, predicted: dict[str, np.ndarray]) -> None:
    assert len(predicted) == 2
    assert all(set(np.unique(labels)) <= {0, 1, 2} for labels in predicted.values())
    record = used(model)
    assert record["losses"] == "segplug-monai 0.1.0 monai_tversky"
    assert record["architectures"] == "segplug-monai 0.1.0 monai_segresnet"
    summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 1


@pytest.mark.parametrize(
    ("plans", "configuration", "settings"),
    [
        (DYN, "3d_fullres", {"loss": "monai_generalized_dice", "weight_averaging": 0.5}),
        (SWIN, "2d", {"loss": "monai_focal", **SMALL_SWIN}),
        ("segplugMonaiUNETRPlans", "2d", {"loss": "monai_hausdorff", **SMALL_UNETR}),
    ],
    ids=["DynUNet, generalised Dice", "SwinUNETR, focal", "UNETR, Hausdorff"],
)
def test_each_network_trains_with_a_loss(
    prepared: Segplug, images: Path, plans: str, configuration: str, settings: dict[str, object]
) -> None:
    model = prepared.train(configuration, plans, settings)
    assert used(model)["losses"].endswith(str(settings["loss"]))
    assert len(predict(prepared, images, model)) == 2


def test_a_transformer_in_3d_by_a_setting_on_nnunet_s_plans(prepared: Segplug) -> None:
    """The plan's patch does not suit it: the message has one that does, and that one trains."""
    prepared("plan", "4")
    done = prepared("train", "4", "3d_fullres", "0", "--set", "trainer.network=monai_swinunetr", code=1)
    (patch,) = re.findall(r"set trainer.patch_size=(\[\d+, \d+, \d+\])", done.stderr)
    model = prepared.train("3d_fullres", "nnUNetPlans", {**SMALL_SWIN, "patch_size": patch, "iterations_per_epoch": 1})
    assert used(model)["architectures"].startswith("segplug-monai")


def test_a_model_goes_to_another_environment_that_has_the_plugin(
    prepared: Segplug, model: Path, elsewhere: Segplug, images: Path, predicted: dict[str, np.ndarray]
) -> None:
    file = exported(prepared)
    elsewhere("model", "import", file)
    (there,) = (elsewhere.folder / "results").glob("*/*__*")
    found = predict(elsewhere, images, there)
    assert found.keys() == predicted.keys()
    assert all(np.array_equal(found[name], predicted[name]) for name in found)


def test_without_the_plugin_the_program_says_what_to_install(
    prepared: Segplug, model: Path, without_plugin: Segplug, images: Path
) -> None:
    listed = without_plugin("plugins", "list", "--kind", "architectures")
    assert "monai" not in listed.stdout
    file = exported(prepared)
    without_plugin("model", "import", file)
    (there,) = (without_plugin.folder / "results").glob("*/*__*")
    done = without_plugin("predict", "-i", images, "-o", without_plugin.folder / "out", "-m", there, "-f", "0", code=1)
    assert "pip install segplug-monai==0.1.0" in done.stderr
    assert "'monai_segresnet'" in done.stderr
    assert "Traceback" not in done.stderr
    # what only trained it is not asked for
    assert "monai_tversky" not in done.stderr
    assert not (without_plugin.folder / "out").exists() or not list((without_plugin.folder / "out").glob("*.nii.gz"))


def test_without_the_plugin_nothing_is_trained_by_its_plans(prepared: Segplug, without_plugin: Segplug) -> None:
    shutil.copytree(prepared.folder / "preprocessed", without_plugin.folder / "preprocessed", dirs_exist_ok=True)
    done = without_plugin("train", "4", "3d_fullres", "0", "-p", SEGRES, "--device", "cpu", code=1)
    assert "pip install segplug-monai==0.1.0" in done.stderr
    assert "Traceback" not in done.stderr


def exported(segplug: Segplug) -> Path:
    file = segplug.folder / "model.zip"
    if not file.exists():
        segplug("model", "export", "4", "-o", file, "-c", "3d_fullres", "-p", SEGRES, "-t", "nnunet", "-f", "0")
    return file
