"""The README, command by command, on the sample that comes with segplug; then the model elsewhere."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import save_file
from segplug_foundation.timm_library import timm

import segplug as segplug_package
from segplug.sample import DATASET

from .conftest import Segplug

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PLANS = "segplugTimmPlans_resnet18"
MODEL = f"results/{DATASET}/nnunet__{PLANS}__2d"

CPU = ("--device", "cpu", "--precision", "fp32")
MOMENT = (
    "epochs=1",
    "iterations_per_epoch=2",
    "val_iterations_per_epoch=1",
    "augmentation.mirror=false",
    "batch_size=2",
)
MORE = {
    "fingerprint": ("--workers", "0"),
    "preprocess": ("--workers", "0"),
    "train": (*CPU, "--workers", "0", *(part for each in MOMENT for part in ("--set", f"trainer.{each}"))),
    "predict": (*CPU, "--no-mirroring"),
}
"""What makes the README's commands quick, behind what it shows."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[list[str]]:
    return [shlex.split(line.removeprefix("$ ")) for line in block.splitlines() if line.startswith("$ segplug ")]


def shown(segplug: Segplug, block: str) -> dict[str, str]:
    """Run a block of the README; returns what each command said."""
    said = {}
    for _, name, *arguments in commands(block):
        done = segplug(name, *arguments, *MORE.get(name, ()))
        said[f"{name} {arguments[0]}" if name == "timm" else name] = done.stdout + done.stderr
    return said


@pytest.fixture(scope="module")
def weights(segplug: Segplug) -> dict[str, Any]:
    """Of a ResNet of timm, in the file that the README names."""
    torch.manual_seed(11)
    state: dict[str, Any] = timm().create_model("resnet18", pretrained=False).state_dict()
    save_file(state, segplug.folder / "resnet18.safetensors")
    return state


@pytest.fixture(scope="module")
def said(segplug: Segplug, weights: dict[str, Any]) -> dict[str, str]:
    """The first block, on two images of the sample and a fold that validates one case."""
    images = sorted((segplug.raw / DATASET / "imagesTr").iterdir())
    (segplug.folder / "images").mkdir()
    for file in images[:2]:
        shutil.copy(file, segplug.folder / "images")
    names = sorted(file.name.partition(".")[0] for file in (segplug.raw / DATASET / "labelsTr").iterdir())
    (segplug.folder / "preprocessed" / DATASET).mkdir(parents=True)
    splits = [{"train": names[1:], "val": names[:1]}, {"train": names[:-1], "val": names[-1:]}]
    (segplug.folder / "preprocessed" / DATASET / "splits_final.json").write_text(json.dumps(splits))
    return shown(segplug, blocks("console")[0])


def label_maps(folder: Path) -> dict[str, np.ndarray]:
    return {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in sorted(folder.glob("*.nii.gz"))}


def checkpoint(segplug: Segplug, fold: int = 0) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(
        segplug.folder / MODEL / f"fold_{fold}" / "checkpoint_final.pth", weights_only=True
    )
    return content


def test_what_the_commands_say(said: dict[str, str]) -> None:
    assert f"{PLANS}: 2d, patch [64, 64]" in said["timm plan"]
    assert "learning rate of encoder.model.layer1: x 0.2401" in said["timm plan"]
    assert "2d alone is planned" in said["timm plan"]
    assert re.search(
        r"120 weights of resnet18 from resnet18.safetensors \(sha256 [0-9a-f]{64}\), 2 not used", said["timm weights"]
    )
    assert "first layer conv1: the sum of three channels" in said["timm weights"]
    assert "pretrained: 120 weights taken over from begin.pth" in said["train"]
    assert "begins anew: decoder" in said["train"]


def test_a_trained_network_predicts(segplug: Segplug, said: dict[str, str]) -> None:
    found = label_maps(segplug.folder / "predictions")
    assert len(found) == 2
    assert all(set(np.unique(labels)) <= {0, 1, 2} for labels in found.values())


def test_stages_learn_at_rates_of_their_own(segplug: Segplug, said: dict[str, str], weights: dict[str, Any]) -> None:
    """The optimiser's groups have them, and the weights went as far."""
    content = checkpoint(segplug)
    groups = content["optimizer_state"]["param_groups"]
    rates = {group["lr_factor"]: group["lr"] for group in groups}
    assert sorted(rates) == pytest.approx([0.1681, 0.2401, 0.343, 0.49, 0.7, 1.0], rel=1e-3)
    for factor, rate in rates.items():
        assert rate == pytest.approx(factor * rates[1.0])
    # one of Adam's first two steps is as long as the learning rate at most, whatever the gradient
    moved = {}
    for layer in ("layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"):
        now = content["network_weights"][f"encoder.model.{layer}.weight"]
        moved[layer] = float((now - weights[f"{layer}.weight"]).abs().max())
    assert moved["layer4.0.conv1"] < 2.1 * 0.7 * rates[1.0]
    assert 0 < moved["layer1.0.conv1"] < moved["layer2.0.conv1"] < moved["layer3.0.conv1"] < moved["layer4.0.conv1"]


def test_the_training_tells_what_it_was_made_of(segplug: Segplug, said: dict[str, str]) -> None:
    extension = checkpoint(segplug)["segplug"]
    assert extension["pretrained"]["file"].endswith("begin.pth")
    assert extension["pretrained"]["hash"]
    used = {each["kind"]: f"{each['distribution']} {each['version']}" for each in extension["provenance"]}
    assert used["architectures"] == used["planners"] == "segplug-foundation 0.1.0"


def test_other_rates_as_the_readme_sets_them(segplug: Segplug, said: dict[str, str]) -> None:
    before = torch.load(segplug.folder / "begin.pth", weights_only=True)["network_weights"]
    shown(segplug, blocks("console")[1].replace(f" -p {PLANS}", f" -p {PLANS} --pretrained begin.pth"))
    content = checkpoint(segplug, 1)
    settings = content["segplug"]["trainer"]["settings"]
    assert settings["lr_factors"]["encoder.model.layer4"] == 1
    assert settings["freeze"] == ["encoder.model.conv1", "encoder.model.bn1"]
    for name in ("conv1.weight", "bn1.weight", "bn1.running_mean"):
        assert torch.equal(content["network_weights"][f"encoder.model.{name}"], before[f"encoder.model.{name}"])


def test_from_python(segplug: Segplug, said: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (segplug.folder / "raw").symlink_to(segplug.raw)
    monkeypatch.chdir(segplug.folder)
    (block,) = blocks("python")
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.split() == ["segplugTimmPlans_convnext_atto", "(64,", "64)"]


def test_a_model_predicts_elsewhere_and_without_the_plugin_says_what_to_install(
    segplug: Segplug, said: dict[str, str], elsewhere: Segplug, without_plugin: Segplug
) -> None:
    for other in (elsewhere, without_plugin):
        shutil.copytree(segplug.folder / MODEL, other.folder / "model")
    images = segplug.folder / "images"
    arguments = ("predict", "-i", images, "-o", "out", "-m", "model", "-f", "0", *MORE["predict"])
    elsewhere(*arguments)
    there, here = label_maps(elsewhere.folder / "out"), label_maps(segplug.folder / "predictions")
    assert there.keys() == here.keys()
    assert all(np.array_equal(there[name], here[name]) for name in here)
    done = without_plugin(*arguments, code=1)
    assert f"pip install segplug-foundation=={version()}" in done.stderr
    assert "'timm_unet'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((without_plugin.folder / "out").glob("*.nii.gz"))


def test_the_command_tells_what_is_wrong(segplug: Segplug, said: dict[str, str]) -> None:
    """Without a process of its own each."""
    from segplug_foundation.command import app
    from typer.testing import CliRunner

    call = CliRunner().invoke
    listed = call(app, ["encoders", "resnet18*"]).output.splitlines()
    assert {"resnet18", "resnet18d"} <= set(listed)
    assert all(name.startswith("resnet18") for name in listed)
    details = call(app, ["encoders", "resnet18", "--details"]).output
    assert details == "resnet18\t64 at 1/2, 64 at 1/4, 128 at 1/8, 256 at 1/16, 512 at 1/32\n"
    assert "cannot be used: " in call(app, ["encoders", "vit_small_patch14_dinov2", "--details"]).output
    wrong = call(app, ["encoders", "resnet18x"])
    assert "has no model 'resnet18x'" in str(wrong.exception)
    wrong = call(app, ["plan", "4", "--option", "drop_path_rate"])
    assert "expected KEY=VALUE" in str(wrong.exception)


def version() -> str:
    from importlib.metadata import version as installed

    assert segplug_package.__version__
    return installed("segplug-foundation")
