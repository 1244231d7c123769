"""Weights of files that timm's models were saved to, random as they are, in the encoder of a network."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from segplug_foundation.networks import build_timm_unet
from segplug_foundation.timm_library import timm
from segplug_foundation.weights import encoder_of_plans, fit, write_checkpoint
from torch import Tensor, nn

from segplug.errors import CheckpointError, DataError

PATCH = (64, 96)


def model(name: str, seed: int = 5, **options: Any) -> nn.Module:
    """A whole model of timm, with its classifier for 1000 classes."""
    torch.manual_seed(seed)
    made: nn.Module = timm().create_model(name, pretrained=False, **options)
    for each in made.modules():
        if isinstance(each, nn.BatchNorm2d):  # as after a training
            each.running_mean = torch.randn_like(each.running_mean)
    return made


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return model("resnet18")


@pytest.fixture(scope="module")
def file(resnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(resnet.state_dict(), path)
    return path


def loaded(name: str, checkpoint: Path, channels: int, options: Any = None) -> nn.Module:
    """A network with the encoder of a checkpoint, as names are matched for --pretrained."""
    torch.manual_seed(0)
    network = build_timm_unet(
        channels, 2, deep_supervision=True, patch_size=PATCH, encoder=name, encoder_options=options, decoder_base=8
    )
    given = torch.load(checkpoint, weights_only=True)["network_weights"]
    left = network.load_state_dict(given, strict=False)
    assert not left.unexpected_keys
    assert all(name.startswith("decoder.") for name in left.missing_keys)
    return network


def test_the_encoder_has_the_weights_of_the_file(resnet: nn.Module, file: Path, tmp_path: Path) -> None:
    fitted = fit(file, "resnet18", 3, PATCH)
    assert fitted.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert fitted.unused == ("fc.bias", "fc.weight")
    assert fitted.stem == ""
    write_checkpoint(fitted, file, "resnet18", 3, tmp_path / "new" / "begin.pth")
    network = loaded("resnet18", tmp_path / "new" / "begin.pth", 3)
    own = network.encoder.model.state_dict()  # type: ignore[union-attr]
    assert len(own) == 120
    for name, weight in own.items():
        assert torch.equal(weight, resnet.state_dict()[name]), name
    note = torch.load(tmp_path / "new" / "begin.pth", weights_only=True)["segplug_foundation"]
    assert (note["sha256"], note["encoder"], note["channels"]) == (fitted.digest, "resnet18", 3)
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["begin.pth"]


def test_features_of_the_encoder_are_those_of_timm_s_model(resnet: nn.Module, file: Path, tmp_path: Path) -> None:
    write_checkpoint(fit(file, "resnet18", 3, PATCH), file, "resnet18", 3, tmp_path / "begin.pth")
    network = loaded("resnet18", tmp_path / "begin.pth", 3).eval()
    image = torch.randn(1, 3, *PATCH)
    whole: Any = resnet.eval()
    with torch.inference_mode():
        torch.testing.assert_close(network.encoder(image)[-1], whole.forward_features(image))  # type: ignore[operator]


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_first_layer_is_made_for_the_channels(resnet: nn.Module, file: Path, channels: int) -> None:
    """Its answer to a grey image stays what it was: channels that are all alike."""
    fitted = fit(file, "resnet18", channels, PATCH)
    before, after = resnet.state_dict()["conv1.weight"], fitted.weights["conv1.weight"]
    assert after.shape == (64, channels, 7, 7)
    if channels == 1:
        torch.testing.assert_close(after[:, 0], before.sum(1))
        assert "the sum of three channels" in fitted.stem
    else:
        for channel in range(channels):
            torch.testing.assert_close(after[:, channel], before[:, channel % 3] * 3 / channels)
        assert f"three channels repeated for {channels}" in fitted.stem


def test_one_channel_is_shared_among_several(tmp_path: Path) -> None:
    grey = model("resnet18", in_chans=1)
    save_file(grey.state_dict(), tmp_path / "grey.safetensors")
    fitted = fit(tmp_path / "grey.safetensors", "resnet18", 4, PATCH)
    image = torch.randn(1, 1, 32, 32)
    wanted = nn.functional.conv2d(image, grey.state_dict()["conv1.weight"])
    found = nn.functional.conv2d(image.expand(-1, 4, -1, -1), fitted.weights["conv1.weight"])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_a_zip_of_torch_with_what_a_training_puts_around_the_weights(resnet: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "training.pth"
    wrapped = {f"module.{name}": weight for name, weight in resnet.state_dict().items()}
    torch.save({"epoch": 7, "arch": "resnet18", "state_dict": wrapped}, file)
    fitted = fit(file, "resnet18", 3, PATCH)
    assert torch.equal(fitted.weights["layer4.1.conv2.weight"], resnet.state_dict()["layer4.1.conv2.weight"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convnext_atto", {"depths": [1, 1, 1, 1]}),
        ("vit_tiny_patch16_224", {"depth": 3}),
        ("swin_tiny_patch4_window7_224", {"depths": [1, 1, 1, 1], "embed_dim": 24}),
    ],
)
def test_other_families(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Made for patches of another size than the model of the file, whose positions and windows are resized."""
    whole = model(name, **options)
    save_file({key: value.contiguous() for key, value in whole.state_dict().items()}, tmp_path / "all.safetensors")
    fitted = fit(tmp_path / "all.safetensors", name, 1, PATCH, options)
    write_checkpoint(fitted, tmp_path / "all.safetensors", name, 1, tmp_path / "begin.pth")
    own = loaded(name, tmp_path / "begin.pth", 1, options).encoder.model.state_dict()  # type: ignore[union-attr]
    first = "stem.0.weight" if name == "convnext_atto" else "patch_embed.proj.weight"
    for key, weight in own.items():
        if key == "pos_embed":
            assert weight.shape == (1, 1 + 4 * 6, 192)
        elif key == first:
            torch.testing.assert_close(weight, whole.state_dict()[key].sum(1, keepdim=True))
        elif weight.shape != whole.state_dict()[key].shape:  # windows of 7 x 7, where the features have 4 x 6 or 2 x 3
            assert key.endswith("relative_position_bias_table")
            assert key.startswith(("layers.2.", "layers.3."))
        else:
            assert torch.equal(weight, whole.state_dict()[key]), key


def test_files_of_other_networks_are_refused_with_the_names(resnet: nn.Module, tmp_path: Path) -> None:
    state = dict(resnet.state_dict())
    file = tmp_path / "wrong.safetensors"

    def told(changed: dict[str, Tensor], encoder: str = "resnet18", channels: int = 3) -> str:
        save_file(changed, file)
        with pytest.raises(CheckpointError, match="not the weights of timm's") as caught:
            fit(file, encoder, channels, PATCH)
        assert str(file) in str(caught.value)
        return str(caught.value)

    fewer = {name: weight for name, weight in state.items() if not name.startswith("layer4.1.conv")}
    assert "missing: layer4.1.conv1.weight, layer4.1.conv2.weight." in told(fewer)
    assert "unexpected: layer9.weight" in told({**state, "layer9.weight": torch.zeros(1)})
    assert "of another shape: bn1.bias (32,) for (64,)" in told({**state, "bn1.bias": torch.zeros(32)})
    five = {**state, "conv1.weight": torch.zeros(64, 5, 7, 7)}
    assert "conv1.weight (64, 5, 7, 7) for (64, 4, 7, 7)" in told(five, channels=4)
    other = told(state, "resnet34")
    assert "missing: layer1.2.conv1.weight, layer1.2.bn1.weight, layer1.2.bn1.bias" in other
    assert "Plan with the encoder that the file is of" in other
    assert "Plan with the encoder" in told(state, "convnext_atto")


def test_files_that_hold_no_weights_are_refused(resnet: nn.Module, tmp_path: Path) -> None:
    def told(file: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            fit(file, "resnet18", 3, PATCH)
        assert str(file) in str(caught.value)
        return str(caught.value)

    assert "cannot be read: No such file" in told(tmp_path / "nowhere.safetensors")
    text = tmp_path / "notes.safetensors"
    text.write_text("resnet18, 70.7 %")
    assert "neither safetensors nor a zip of torch" in told(text)
    pickled = tmp_path / "model.pth"
    torch.save(resnet, pickled)
    assert "more than tensors, which could run code" in told(pickled)
    torch.save({"epoch": 3}, pickled)
    assert "holds no weights by name" in told(pickled)
    short = tmp_path / "short.safetensors"
    save_file(resnet.state_dict(), short)
    short.write_bytes(short.read_bytes()[:5000])
    assert "damaged, or no file of weights" in told(short)


def test_plans_without_an_encoder_are_told(tmp_path: Path) -> None:
    file = tmp_path / "nnUNetPlans.json"
    plain = {"configurations": {"2d": {"architecture": {"arch_kwargs": {"n_stages": 5}}, "patch_size": [64, 64]}}}
    for plans in ({}, {"configurations": {"3d_fullres": {}}}, plain):
        with pytest.raises(DataError, match=r"nnUNetPlans.json: no plans for an encoder of timm.*segplug timm plan"):
            encoder_of_plans(plans, file)
