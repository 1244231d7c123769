"""U-Nets on encoders of several families: built, trained, and refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from segplug_foundation.networks import build_timm_unet
from torch import Tensor, nn

from segplug.errors import DataError

FAMILIES: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "convnext_atto": {"depths": [1, 1, 2, 1]},
    "efficientnet_b0": {},
    "swin_tiny_patch4_window7_224": {"depths": [1, 1, 2, 1], "embed_dim": 24},
    "vit_tiny_patch16_224": {"depth": 3},
    "vgg11": {},
}
PATCH = (64, 96)


def built(encoder: str, channels: int = 3, *, deep_supervision: bool = True, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_timm_unet(
        channels,
        3,
        deep_supervision=deep_supervision,
        patch_size=options.pop("patch_size", PATCH),
        encoder=encoder,
        encoder_options=options.pop("encoder_options", FAMILIES.get(encoder)),
        decoder_base=options.pop("decoder_base", 8),
        **options,
    )


def batch(channels: int = 3) -> tuple[Tensor, Tensor]:
    """Noise, brighter where the labels are 1 or 2."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.zeros(2, *PATCH, dtype=torch.int64)
    labels[:, 8:40, 16:56], labels[:, 24:56, 60:90] = 1, 2
    images = torch.randn(2, channels, *PATCH, generator=generator) * 0.3 + labels[:, None]
    return images, labels


@pytest.mark.parametrize("encoder", [name for name in FAMILIES if name != "vgg11"])
def test_each_family_learns_and_all_of_its_encoder_does(encoder: str) -> None:
    network = built(encoder).train()
    images, labels = batch()
    before = {name: weight.detach().clone() for name, weight in network.encoder.named_parameters()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        outputs = network(images)
        loss = nn.functional.cross_entropy(outputs[0], labels)
        # the lower resolutions have their say, so that their layers are trained too
        (loss + sum(0.01 * each.square().mean() for each in outputs[1:])).backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0], losses
    still = [name for name, weight in network.encoder.named_parameters() if torch.equal(weight, before[name])]
    assert not still


@pytest.mark.parametrize("encoder", list(FAMILIES))
def test_logits_from_full_resolution_to_half_of_the_coarsest(encoder: str) -> None:
    network = built(encoder).train()
    images, _ = batch()
    stride = 16 if encoder.startswith("vit") else 32
    expected, step = [], 1
    while step < stride:
        expected.append((2, 3, PATCH[0] // step, PATCH[1] // step))
        step *= 2
    assert [tuple(each.shape) for each in network(images)] == expected
    network.eval()
    assert tuple(network(images).shape) == (2, 3, *PATCH)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("encoder", "stem"), [("resnet18", "conv1"), ("convnext_atto", "stem.0")])
def test_the_stem_takes_the_channels_of_the_data(encoder: str, stem: str, channels: int) -> None:
    network = built(encoder, channels).eval()
    layer: Any = network.get_submodule(f"encoder.model.{stem}")
    assert layer.in_channels == channels
    images, _ = batch(channels)
    with torch.inference_mode():
        assert torch.isfinite(network(images)).all()
        changed = images.clone()
        changed[:, -1] += 1
        assert not torch.equal(network(images), network(changed))


def test_weights_do_not_depend_on_deep_supervision() -> None:
    """A trained network is built without it for prediction."""
    trained, predicting = built("resnet18"), built("resnet18", deep_supervision=False)
    predicting.load_state_dict(trained.state_dict(), strict=True)
    assert isinstance(predicting.train()(batch()[0]), Tensor)


def test_options_of_the_encoder_arrive() -> None:
    shallow = built("vit_tiny_patch16_224", encoder_options={"depth": 2, "out_indices": [0, 1]})
    names = {name.split(".")[3] for name, _ in shallow.encoder.named_parameters(prefix="encoder") if ".blocks." in name}
    assert names == {"0", "1"}
    few = built("resnet18", encoder_options={"out_indices": [0, 1, 2]}, patch_size=(40, 24))
    assert not [name for name, _ in few.named_parameters() if "layer3" in name or "layer4" in name]
    assert len(few.train()(torch.randn(2, 3, 40, 24))) == 3


@pytest.mark.parametrize(
    ("encoder", "options", "told"),
    [
        ("resnet19", {}, r"has no model 'resnet19'. Did you mean .*resnet18"),
        ("hf-hub:timm/resnet18.a1_in1k", {}, "Nothing is taken from a hub or a folder.*segplug timm weights"),
        ("resnet18", {"patch_size": (64, 60)}, r"\[64, 60\]; expected multiples of 32.*trainer.patch_size=\[64, 64\]"),
        ("resnet18", {"patch_size": (32, 64, 64)}, "expected two axes.*2d configuration.*--planner timm_unet"),
        ("resnet18", {"encoder_options": {"pretrained": True}}, "'pretrained', which it cannot: weights come by"),
        ("resnet18", {"encoder_options": {"in_chans": 3}}, "'in_chans', which it cannot: it is the number"),
        ("resnet18", {"encoder_options": {"colour": 3}}, r"cannot be built .* with {'colour': 3}: TypeError"),
        (
            "vit_small_patch14_dinov2",
            {"patch_size": (56, 56)},
            r"smaller than the image by \[14, 14, 14\]; expected pow",
        ),
        ("resnet18", {"decoder_base": 0}, "decoder_base 0; expected 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(encoder: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        built(encoder, **options)
