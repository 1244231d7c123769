"""What is exported: the network's output in a session of ONNX Runtime, and all that belongs to it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from segplug_onnx.exporting import NetworkShape, export_network, weights_sha256
from segplug_onnx.stage import export_model
from torch import Tensor, nn

import segplug
from segplug.errors import DataError, PluginError
from segplug.model import ComponentRef

from .models import Recipe

RESIDUAL = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
BLOCKS: dict[str, Any] = {
    "n_stages": 3, "features_per_stage": [4, 8, 8], "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": 3,
    "strides": [1, 2, [1, 2, 2]], "n_blocks_per_stage": [1, 2, 2], "n_conv_per_stage_decoder": 1, "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"affine": True},
    "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
}  # fmt: skip
PRIMUS = ComponentRef("primus", {"embed_dim": 48, "patch_embed_size": [8, 8, 8], "eva_depth": 2, "eva_numheads": 4})


def export(model: Path, output: Path | None = None) -> tuple[segplug.LoadedModel, Path]:
    """A model and the folder it was exported to."""
    with segplug.open_project(None, None, None, workers=0) as project:
        loaded = segplug.load_model(model, project=project)
        paths = export_model(project, loaded.trained, output)
    return loaded, paths[0].parent


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(
            folds=(0, 1),
            normalization=("CTNormalization", "NoNormalization"),
            labels={"background": 0, "a": (1, 2), "b": 2},
            regions_class_order=(1, 2),
        ),
        Recipe(patch=(16, 24), spacing=(1.0, 1.0), folds=("all",)),
        Recipe(architecture=ComponentRef(RESIDUAL, BLOCKS)),
        Recipe(architecture=PRIMUS),
    ],
    ids=["3D, two folds, regions", "2D", "residual encoder", "Primus"],
)  # fmt: skip
def test_a_session_computes_what_the_network_does(recipe: Recipe, tmp_path: Path) -> None:
    loaded, folder = export(recipe.write(tmp_path))
    told = json.loads((folder / "recipe.json").read_text())
    networks = loaded.trained.networks(torch.device("cpu"))
    assert [each["fold"] for each in told["networks"]] == list(loaded.folds)
    for entry, network in zip(told["networks"], networks, strict=True):
        onnx.checker.check_model(folder / entry["file"], full_check=True)
        session = onnxruntime.InferenceSession(folder / entry["file"])
        (taken,), (given,) = session.get_inputs(), session.get_outputs()
        assert (taken.name, taken.shape) == (entry["input"]["name"], entry["input"]["shape"])
        assert (given.name, given.shape) == (entry["output"]["name"], entry["output"]["shape"])
        for batch in (1, 3):
            x = torch.randn(batch, *taken.shape[1:])
            (found,) = session.run(None, {"image": x.numpy()})
            np.testing.assert_allclose(found, network(x).numpy(), atol=1e-4)
        assert entry["weights_sha256"] == session.get_modelmeta().custom_metadata_map["segplug.weights_sha256"]


def test_the_folder_tells_everything(tmp_path: Path) -> None:
    model = Recipe(
        transpose=(1, 0, 2), spacing=(2.0, 1.0, 0.5), normalization=("CTNormalization",), mirror_axes=(0, 2)
    ).write(tmp_path)
    _, folder = export(model, tmp_path / "exported")
    told = json.loads((folder / "recipe.json").read_text())
    assert not (model / "onnx").exists()
    for name in ("plans.json", "dataset.json"):
        assert (folder / name).read_bytes() == (model / name).read_bytes()
    hashes = {**told["files"], **{each["file"]: each["sha256"] for each in told["networks"]}}
    assert set(hashes) == {file.name for file in folder.iterdir()} - {"recipe.json", ".lock"}
    for name, known in hashes.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == known
    (step,) = told["normalization"]
    assert (step["method"], step["mean"], step["std"]) == ("ct", 0.5, 2.0)
    assert (step["percentile_00_5"], step["percentile_99_5"]) == (-1.5, 2.5)
    assert (told["transpose_forward"], told["spacing"]) == ([1, 0, 2], [2.0, 1.0, 0.5])
    assert told["resampling"]["data"]["order"] == 3
    assert told["resampling"]["logits"] == {
        "name": "resample_data_or_seg_to_shape", "method": "spline", "order": 1, "order_z": 0,
        "force_separate_z": None, "separate_z_anisotropy_threshold": 3.0,
    }  # fmt: skip
    assert told["window"] == {
        "patch_size": [16, 16, 16], "step_size": 0.5, "gaussian_sigma": 0.125, "mirror_axes": [0, 2],
        "padding": "zeros",
    }  # fmt: skip
    assert told["labels"] == {"regions": False, "of_channels": [0, 1, 2], "names": ["background", "a", "b"]}
    assert told["networks"][0]["opset"] == onnx.load(folder / "fold_0.onnx").opset_import[0].version


def test_steps_of_other_plugins_are_named_and_left_to_the_user(tmp_path: Path) -> None:
    model = Recipe().write(tmp_path)
    file = model / "plans.json"
    plans = json.loads(file.read_text())
    entry = {"kind": "normalizers", "name": "ZScoreNormalization"}
    entry |= {"plugin": "other", "distribution": "other", "version": "1"}
    plans["segplug"] = plans.get("segplug", {}) | {"provenance": [entry]}
    file.write_text(json.dumps(plans))
    settings = segplug.PredictionSettings(allow_provider_change=True)
    with segplug.open_project(None, None, None, workers=0) as project:
        loaded = segplug.load_model(model, settings=settings, project=project)
        export_model(project, loaded.trained)
    told = json.loads((model / "onnx" / "recipe.json").read_text())
    assert (told["normalization"][0]["name"], told["normalization"][0]["method"]) == ("ZScoreNormalization", None)
    assert told["resampling"]["data"]["method"] == "spline"


def test_what_is_there_is_kept_and_other_weights_are_exported_anew(tmp_path: Path) -> None:
    recipe = Recipe(folds=(0, 1))
    loaded, folder = export(recipe.write(tmp_path))
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.onnx")}
    export(loaded.folder)
    assert {file.name: file.stat().st_mtime_ns for file in folder.glob("*.onnx")} == before
    first, second = (loaded.folder / f"fold_{fold}" / "checkpoint_final.pth" for fold in (0, 1))
    first.write_bytes(second.read_bytes())
    export(loaded.folder)
    told = json.loads((folder / "recipe.json").read_text())["networks"]
    assert [each["file"] for each in told] == ["fold_0.onnx", "fold_1.onnx"]
    assert told[0]["weights_sha256"] == told[1]["weights_sha256"]
    assert (folder / "fold_0.onnx").stat().st_mtime_ns != before["fold_0.onnx"]


def test_networks_of_another_model_do_not_stay(tmp_path: Path) -> None:
    export(Recipe(folds=(0, 1)).write(tmp_path / "first"), tmp_path / "out")
    export(Recipe(patch=(16, 16), spacing=(1.0, 1.0)).write(tmp_path / "second"), tmp_path / "out")
    told = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert [each["file"] for each in told["networks"]] == ["fold_0.onnx"]
    assert not (tmp_path / "out" / "fold_1.onnx").exists()


class Without(nn.Module):
    """A network with an operation that ONNX does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.matrix_exp(x)


class Undecided(nn.Module):
    """A network that looks at values outside of torch, where no exporter sees it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.sum())


@pytest.mark.parametrize(
    ("network", "told"), [(Without(), "cannot be exported to ONNX"), (Undecided(), "computes other logits")]
)
def test_a_network_that_cannot_be_exported_is_told(network: nn.Module, told: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=f"architecture odd: .*{told}.*--predictor torch"):
        export_network(network, NetworkShape(1, 1, (4, 4)), tmp_path / "odd.onnx", "odd")


def test_weights_are_told_apart() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    assert weights_sha256(first) == weights_sha256(first)
    assert weights_sha256(first) != weights_sha256(second)


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: cannot be written"):
        export(Recipe().write(tmp_path), tmp_path / "file")
