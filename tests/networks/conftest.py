"""Arguments of small networks, as plans hold them."""

from __future__ import annotations

from typing import Any

import pytest

LIBRARY = "dynamic_network_architectures.architectures.unet"


def arch_kwargs(dimensions: int, kind: str, **changes: Any) -> dict[str, Any]:
    """`arch_kwargs` of a three-stage network; kernels and strides differ per axis."""
    blocks = {"n_conv_per_stage": [2, 2, 2]} if kind == "PlainConvUNet" else {"n_blocks_per_stage": [1, 3, 2]}
    return {
        "n_stages": 3,
        "features_per_stage": [4, 8, 12],
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": [[1] + [3] * (dimensions - 1), [3] * dimensions, [3] * dimensions],
        "strides": [[1] * dimensions, [1] + [2] * (dimensions - 1), [2] * dimensions],
        **blocks,
        "n_conv_per_stage_decoder": [2, 1],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        **changes,
    }


def variants() -> list[tuple[str, int, dict[str, Any]]]:
    """Every kind of network that a plan can ask for."""
    bottleneck = {"block": f"{LIBRARY.rsplit('.', 2)[0]}.building_blocks.residual.BottleneckD"}
    bottleneck |= {"bottleneck_channels": [2, 3, 4], "stem_channels": 6}  # type: ignore[dict-item]
    found = []
    for dimensions in (2, 3):
        batch_norm = {
            "norm_op": f"torch.nn.modules.batchnorm.BatchNorm{dimensions}d",
            "dropout_op": f"torch.nn.Dropout{dimensions}d",
            "dropout_op_kwargs": {"p": 0.1},
            "conv_bias": False,
        }
        for kind, changes in (
            ("PlainConvUNet", {}),
            ("PlainConvUNet", {"n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1, "nonlin_first": True}),
            ("PlainConvUNet", batch_norm),
            ("ResidualEncoderUNet", {}),
            ("ResidualEncoderUNet", bottleneck),
        ):
            found.append((kind, dimensions, arch_kwargs(dimensions, kind, **changes)))
    return found


@pytest.fixture(params=variants(), ids=lambda v: f"{v[0]}-{v[1]}d")
def variant(request: pytest.FixtureRequest) -> tuple[str, int, dict[str, Any]]:
    found: tuple[str, int, dict[str, Any]] = request.param
    return found


@pytest.fixture(scope="session")
def all_variants() -> list[tuple[str, int, dict[str, Any]]]:
    return variants()
