"""Cost arithmetic against real networks: what their convolutions put out, and how many multiply-adds that takes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from segplug_builtin.planners.default import RULES
from segplug_builtin.planners.feature_maps import feature_map_cost, multiply_adds
from segplug_builtin.planners.patch_size import NetworkPlan
from segplug_builtin.planners.residual_encoder import L
from segplug_builtin.planners.topology import plan_topology
from segplug_builtin.planners.unets import architecture

CASES = [
    ("plain", (1.0, 1.0, 1.0), (40, 56, 40)),
    ("plain", (5.0, 1.0, 1.0), (12, 64, 80)),
    ("plain", (1.0, 1.0), (96, 64)),
    ("plain", (1.0, 1.0, 1.0), (6, 7, 5)),
    ("residual", (1.0, 1.0, 1.0), (40, 56, 40)),
    ("residual", (8.0, 1.0, 1.3), (9, 64, 64)),
    ("residual", (1.0, 1.0), (640, 320)),
]


@pytest.mark.parametrize(("kind", "spacing", "patch"), CASES)
def test_costs_are_those_of_the_network(kind: str, spacing: tuple[float, ...], patch: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    from segplug_builtin.architectures.plain_unet import build_plain_unet
    from segplug_builtin.architectures.residual_encoder_unet import build_residual_encoder_unet

    rules = replace(RULES if kind == "plain" else L, base_features=4)
    topology = plan_topology(spacing, patch)
    unet = rules.unet(topology, 3, 5)
    options = architecture(NetworkPlan(topology, unet, 2)).options
    outputs, products = [], []

    def count(module: Any, inputs: Any, output: Any) -> None:
        outputs.append(output.numel())
        # a transposed convolution's kernel is its stride, so that each output voxel has one tap
        taps = 1 if module.transposed else math.prod(module.kernel_size)
        products.append(output.numel() * module.in_channels * taps)

    with torch.device("meta"):
        build = build_plain_unet if kind == "plain" else build_residual_encoder_unet
        network = build(3, 5, deep_supervision=False, **options)
        for module in set(network.modules()):
            if hasattr(module, "transposed"):
                module.register_forward_hook(count)
        if topology.stages > 1:
            network(torch.zeros(1, 3, *topology.patch_size))
        else:  # too small to pool: nnU-Net's cost is the encoder's then
            network.encoder(torch.zeros(1, 3, *topology.patch_size))
    assert feature_map_cost(unet, topology.patch_size) == sum(outputs)
    assert multiply_adds(unet, topology.patch_size) == sum(products)
