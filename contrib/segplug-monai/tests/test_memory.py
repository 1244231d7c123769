"""What the planner thinks that networks keep, against what autograd keeps."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from segplug_monai.planners import SEGRESNET_NETWORK, SWINUNETR_NETWORK, UNETR_NETWORK, Network
from torch import Tensor

from segplug import ComponentRef
from segplug.kernel import Kernel

NETWORKS = {network.component: network for network in (SEGRESNET_NETWORK, SWINUNETR_NETWORK, UNETR_NETWORK)}
PATCHES = {
    "monai_segresnet": [(32, 48, 40), (128, 96)],
    "monai_swinunetr": [(32, 64, 64), (64, 64, 32), (96, 128), (64, 64)],
    "monai_unetr": [(48, 32, 64), (96, 128), (64, 32)],
}


def kept_bytes(network: torch.nn.Module, patch: Tensor) -> int:
    """Bytes that a forward pass in float32 leaves for the backward pass, weights not counted, each storage once."""
    weights = {each.untyped_storage().data_ptr() for each in network.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other can have its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(patch)
    return sum(storage.nbytes() for storage in kept.values())


def built(network: Network, patch: tuple[int, ...]) -> torch.nn.Module:
    build: Any = Kernel().registry.build("architectures", ComponentRef(network.component, dict(network.arguments)))
    made: torch.nn.Module = build(1, 3, deep_supervision=False, patch_size=patch)
    return made


@pytest.mark.parametrize(("name", "patch"), [(name, patch) for name, sizes in PATCHES.items() for patch in sizes])
def test_what_is_planned_is_what_autograd_keeps(name: str, patch: tuple[int, ...]) -> None:
    network = NETWORKS[name]
    found = kept_bytes(built(network, patch).train(), torch.randn(1, 1, *patch))
    planned = 4 * network.kept(patch, network.features)
    assert found <= planned * 1.01
    assert planned <= 1.1 * found, f"{planned / found:.2f} times what is kept"


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("axes", [2, 3])
def test_weights_are_counted(name: str, axes: int) -> None:
    network = NETWORKS[name]
    patch = (64,) * axes
    found = 16 * sum(weight.numel() for weight in built(network, patch).parameters())
    assert found <= network.bytes_of_weights(axes) <= 1.15 * found


def test_a_wider_network_is_planned_with_its_width() -> None:
    """The fit holds for other features than the default, as plans edited by hand have them."""
    from monai.networks.nets import SwinUNETR

    network = SwinUNETR(1, 3, feature_size=12, spatial_dims=3).train()
    found = kept_bytes(network, torch.randn(1, 1, 64, 32, 32))
    assert 4 * SWINUNETR_NETWORK.kept((64, 32, 32), 12) == pytest.approx(found, rel=0.1)


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys, segplug_monai, segplug_monai.planners; "
        "print([name for name in ('torch', 'monai', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
