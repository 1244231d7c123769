"""U-Nets: shapes, names, initialisation, and what a plan may not say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segplug.errors import DataError
from segplug.kernel import Kernel
from segplug.runtime.checkpoint import load_weights, read_checkpoint
from segplug.runtime.plan_codec import read_plan
from segplug_builtin.architectures.plain_unet import build_plain_unet
from segplug_builtin.architectures.primus import build_primus
from segplug_builtin.architectures.residual_encoder_unet import build_residual_encoder_unet
from segplug_builtin.architectures.torch_modules import torch_module

LIBRARY = "dynamic_network_architectures.architectures.unet"
Variant = tuple[str, int, dict[str, Any]]


def build(variant: Variant, deep_supervision: bool = False) -> nn.Module:
    kind, _, arguments = variant
    network: nn.Module = Kernel(discover=False).registry.build("architectures", f"{LIBRARY}.{kind}")(
        2, 3, deep_supervision=deep_supervision, **arguments
    )
    return network


def patch(dimensions: int) -> tuple[int, ...]:
    return (8, 16, 16)[-dimensions:]


def test_logits_have_the_size_of_the_patch(variant: Variant) -> None:
    x = torch.randn(2, 2, *patch(variant[1]))
    assert build(variant)(x).shape == (2, 3, *patch(variant[1]))


def test_deep_supervision_returns_every_resolution_from_full_to_lowest(variant: Variant) -> None:
    network = build(variant, deep_supervision=True)
    x = torch.randn(2, 2, *patch(variant[1]))
    full, half = network(x)
    assert full.shape == (2, 3, *patch(variant[1]))
    assert half.shape == (2, 3, *(n // s for n, s in zip(patch(variant[1]), variant[2]["strides"][1], strict=True)))


def test_switching_deep_supervision_off_leaves_the_first_output(variant: Variant) -> None:
    network = build(variant, deep_supervision=True).eval()
    x = torch.randn(1, 2, *patch(variant[1]))
    with torch.no_grad():
        full = network(x)[0]
        network.deep_supervision = False  # type: ignore[assignment]
        assert torch.equal(network(x), full)


def test_weights_stand_under_all_names_of_nnunet(variant: Variant) -> None:
    state = build(variant).state_dict()
    first = "encoder.stages.0.0.convs.0" if variant[0] == "PlainConvUNet" else "encoder.stem.convs.0"
    for name in ("conv.weight", "all_modules.0.weight"):
        assert state[f"{first}.{name}"].data_ptr() == state[f"decoder.{first}.{name}"].data_ptr()
    assert {"decoder.transpconvs.1.weight", "decoder.seg_layers.0.bias", "decoder.seg_layers.1.bias"} <= set(state)


def test_convolutions_begin_by_he_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    network = build_plain_unet(1, 2, deep_supervision=False, **_wide(2, "n_conv_per_stage"))
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.weight.numel() > 1000:
            fan_in = module.weight[0].numel()
            expected = math.sqrt(2 / (1 + 0.01**2) / fan_in)
            assert module.weight.std().item() == pytest.approx(expected, rel=0.15)
            assert not module.bias.any()  # type: ignore[union-attr]


def test_residual_blocks_begin_as_identity() -> None:
    network = build_residual_encoder_unet(1, 2, deep_supervision=False, **_wide(2, "n_blocks_per_stage"))
    last = [m for name, m in network.named_modules() if name.endswith("conv2.norm")]
    assert last
    for norm in last:
        assert not norm.weight.any()  # type: ignore[operator, union-attr]
        assert not norm.bias.any()  # type: ignore[operator, union-attr]


def _wide(dimensions: int, blocks: str) -> dict[str, Any]:
    return {
        "n_stages": 2,
        "features_per_stage": [32, 64],
        "conv_op": f"torch.nn.Conv{dimensions}d",
        "kernel_sizes": 3,
        "strides": [1, 2],
        blocks: 2,
        "n_conv_per_stage_decoder": 1,
        "conv_bias": True,
        "norm_op": f"torch.nn.InstanceNorm{dimensions}d",
        "norm_op_kwargs": {"affine": True},
        "nonlin": "torch.nn.LeakyReLU",
    }


@settings(max_examples=25)
@given(
    dimensions=st.sampled_from((2, 3)),
    strides=st.lists(st.lists(st.sampled_from((1, 2, 3)), min_size=3, max_size=3), min_size=0, max_size=3),
    repeats=st.lists(st.integers(1, 2), min_size=3, max_size=3),
)
def test_any_strides_and_number_of_stages(dimensions: int, strides: list[list[int]], repeats: list[int]) -> None:
    """From a single stage on (images too small to be pooled), with and without deep supervision."""
    all_strides = [[1] * dimensions, *(s[:dimensions] for s in strides)]
    stages = len(all_strides)
    arguments = {
        **_wide(dimensions, "n_conv_per_stage"),
        "n_stages": stages,
        "features_per_stage": [2] * stages,
        "strides": all_strides,
    }
    size = [r * math.prod(s[a] for s in all_strides) for a, r in zip(range(dimensions), repeats, strict=False)]
    size[0] *= 2  # instance norm wants more than one value
    x = torch.randn(1, 1, *size)
    network = build_plain_unet(1, 2, deep_supervision=True, **arguments)
    network.eval()
    outputs = network(x)
    assert len(outputs) == max(1, stages - 1)
    assert tuple(outputs[0].shape[2:]) == tuple(size)


def test_a_list_of_the_wrong_length_is_named() -> None:
    with pytest.raises(DataError, match=r"features_per_stage has 3 entries, expected 2"):
        build_plain_unet(
            1, 2, deep_supervision=False, **{**_wide(2, "n_conv_per_stage"), "features_per_stage": [1, 2, 3]}
        )


@pytest.mark.parametrize("name", ["torch.nn.Conv3d", "torch.nn.modules.conv.Conv3d", "Conv3d"])
def test_names_of_modules(name: str) -> None:
    assert torch_module("conv_op", name) is nn.Conv3d


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("conv_op", "os.system"),
        ("conv_op", "torch.nn.Linear"),
        ("nonlin", "torch.nn.Conv3d"),
        ("norm_op", "torch.hub.load"),
        ("dropout_op", "torch.nn.modules.dropout.__builtins__"),
        ("nonlin", "evil.torch.nn.LeakyReLU"),
    ],
)
def test_no_other_name_is_looked_up(argument: str, name: str) -> None:
    with pytest.raises(DataError, match=argument):
        torch_module(argument, name)


def test_unknown_residual_block() -> None:
    with pytest.raises(DataError, match=r"block is 'os\.system'"):
        build_residual_encoder_unet(1, 2, deep_supervision=False, block="os.system", **_wide(2, "n_blocks_per_stage"))


def test_trained_weights_of_nnunet_load_strictly(shared: Path) -> None:
    for folder in (shared / "reference" / "models" / "Dataset004_Hippocampus").iterdir():
        checkpoint = read_checkpoint(folder / "fold_0" / "checkpoint_final.pth")
        configuration = read_plan(folder / "plans.json").configurations[checkpoint.configuration]
        architecture = configuration.architecture
        build_network = Kernel(discover=False).registry.build("architectures", architecture)
        network = build_network(1, 3, deep_supervision=True)
        load_weights(network, checkpoint.weights, folder.name)
        assert list(network.state_dict()) == list(checkpoint.weights)
        if checkpoint.state["optimizer_state"] is not None:
            numbered = checkpoint.state["optimizer_state"]["param_groups"][0]["params"]
            assert numbered == list(range(len(list(network.parameters()))))


PRIMUS = {"embed_dim": 24, "eva_depth": 2, "eva_numheads": 4}


@pytest.mark.parametrize(
    ("patch_size", "options", "told"),
    [
        ((16, 16), PRIMUS, "three axes"),
        ((16, 12, 16), PRIMUS, "no multiple"),
        ((16, 16, 16), {**PRIMUS, "embed_dim": 32}, "multiple of 6"),
        ((16, 16, 16), {**PRIMUS, "eva_numheads": 5}, "multiple of eva_numheads"),
        ((16, 16, 16), {**PRIMUS, "patch_embed_size": (6, 8, 8)}, "powers of two"),
        ((16, 16, 16), {"size": "XL"}, "no size 'XL'"),
        ((16, 16, 16), {"embed_dim": 24}, "needs a size"),
    ],
)
def test_what_primus_cannot_be(patch_size: tuple[int, ...], options: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        build_primus(1, 3, deep_supervision=False, patch_size=patch_size, **options)


def test_primus_takes_patches_of_its_size_alone_and_skips_layers_in_training_alone() -> None:
    torch.manual_seed(0)
    network = build_primus(1, 3, deep_supervision=True, patch_size=(8, 16, 8), drop_path_rate=0.5, **PRIMUS)
    x = torch.randn(16, 1, 8, 16, 8)
    assert network(x).shape == (16, 3, 8, 16, 8)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))
    with pytest.raises(ValueError, match=r"patches of \(8, 16, 8\)"):
        network(torch.randn(1, 1, 16, 16, 8))
