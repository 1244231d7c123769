"""Networks laid out for a CPU compute what they were given to compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from segplug.kernel import Kernel
from segplug.runtime.device import cpu_has_bf16
from segplug_builtin.packed_networks import packed

LIBRARY = "dynamic_network_architectures.architectures.unet"
BLOCKS = f"{LIBRARY.rsplit('.', 2)[0]}.building_blocks.residual"


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A U-Net of any kind that plans have, with weights that are not its first ones, and an input."""
    axes = draw(st.sampled_from([2, 3]))
    stages = draw(st.integers(2, 4))
    strides = [[1] * axes] + [draw(st.lists(st.integers(1, 2), min_size=axes, max_size=axes)) for _ in range(1, stages)]
    kernels = [draw(st.lists(st.sampled_from([1, 3]), min_size=axes, max_size=axes)) for _ in range(stages)]
    residual, batch_norm = draw(st.booleans()), draw(st.booleans())
    kind = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    norm = f"torch.nn.modules.batchnorm.BatchNorm{axes}d" if batch_norm else f"torch.nn.InstanceNorm{axes}d"
    blocks = {"n_blocks_per_stage" if residual else "n_conv_per_stage": [draw(st.integers(1, 2))] * stages}
    if residual and draw(st.booleans()):
        blocks |= {"block": f"{BLOCKS}.BottleneckD", "bottleneck_channels": [3] * stages, "stem_channels": 5}  # type: ignore[dict-item]
    arguments: dict[str, Any] = {
        "n_stages": stages,
        "features_per_stage": draw(st.lists(st.integers(1, 18), min_size=stages, max_size=stages)),
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": kernels,
        "strides": strides,
        **blocks,
        "n_conv_per_stage_decoder": [draw(st.integers(1, 2))] * (stages - 1),
        "conv_bias": draw(st.booleans()),
        "norm_op": None
        if draw(st.integers(0, 5)) == 0
        else norm.replace("torch.nn.I", "torch.nn.modules.instancenorm.I"),
        "norm_op_kwargs": {"eps": 1e-5, "affine": draw(st.booleans())},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": draw(st.sampled_from(["torch.nn.LeakyReLU", "torch.nn.ReLU"])),
        "nonlin_kwargs": {"inplace": draw(st.booleans())},
    }
    channels, classes = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    torch.manual_seed(draw(st.integers(0, 99)))
    build: Any = Kernel(discover=False).registry.build("architectures", f"{LIBRARY}.{kind}")
    network: nn.Module = build(channels, classes, deep_supervision=False, **arguments)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point() and tensor.ndim == 1:  # of norms and biases
            nn.init.uniform_(tensor, 0.5, 1.5)
    steps = [2 * max(1, int(n)) for n in torch.tensor(strides).prod(0)]
    sizes = [step * draw(st.integers(1, 2)) for step in steps]
    return network.eval().requires_grad_(False), torch.randn(draw(st.integers(1, 3)), channels, *sizes)


@given(networks())
@settings(max_examples=40)
def test_logits_are_those_of_the_network(given: tuple[nn.Module, Tensor]) -> None:
    network, x = given
    twin = packed(network, torch.float32)
    assert twin is not None
    with torch.inference_mode():
        expected, found = network(x), twin(x)
        again = twin(x)
    scale = max(1.0, float(expected.abs().max()))
    assert found.shape == expected.shape
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=2e-4)
    assert torch.equal(found, again)


def small_network(**changes: Any) -> nn.Module:
    torch.manual_seed(0)
    layers = {
        "down": nn.Conv3d(2, 4, 3, 2, 1),
        "norm": nn.InstanceNorm3d(4, affine=True),
        "nonlin": nn.LeakyReLU(),
        "up": nn.ConvTranspose3d(4, 3, 2, 2),
        **changes,
    }
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return network.eval().requires_grad_(False)


X = torch.linspace(-1, 1, 2 * 8 * 6 * 4).sin().view(1, 2, 8, 6, 4)


def test_weights_are_shared_and_their_changes_followed() -> None:
    network = small_network()
    plain = network(X)
    twin = packed(network, torch.float32)
    assert twin is not None
    assert [p.data_ptr() for p in twin.parameters()] == [p.data_ptr() for p in network.parameters()]
    torch.testing.assert_close(twin(X), plain)
    for weights in network.parameters():
        weights.mul_(-0.5)
    assert not torch.allclose(network(X), plain)
    torch.testing.assert_close(twin(X), network(X))
    network.load_state_dict(small_network().state_dict())
    torch.testing.assert_close(twin(X), plain)


def test_the_network_itself_stays_as_it_was() -> None:
    network = small_network()
    before = {name: dict(vars(module)) for name, module in network.named_modules()}
    twin = packed(network, torch.float32)
    assert twin is not None
    twin(X)
    assert {name: dict(vars(module)) for name, module in network.named_modules()} == before
    assert all(ours is not theirs for ours, theirs in zip(twin.modules(), network.modules(), strict=True))
    assert list(twin.state_dict()) == list(network.state_dict())


def test_a_module_that_stands_in_two_places_stays_one() -> None:
    conv = nn.Conv3d(2, 2, 3, padding=1)
    network = nn.ModuleDict({"first": conv, "all": nn.Sequential(conv, nn.ReLU(), conv)})
    twin = packed(network.eval(), torch.float32)
    assert isinstance(twin, nn.ModuleDict)
    assert twin["first"] is twin["all"][0] is twin["all"][2]  # type: ignore[index]
    assert twin["first"] is not conv


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class OwnConvolution(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "other",
    [
        {"norm": Scaled()},
        {"nonlin": nn.PReLU()},
        {"norm": nn.InstanceNorm3d(4, track_running_stats=True)},
        {"down": OwnConvolution(2, 4, 3, 2, 1)},
        {"down": nn.Conv3d(2, 4, 3, 2, 1, padding_mode="reflect")},
        {"up": nn.ConvTranspose3d(4, 3, 4, 2, 1)},
        {"up": nn.ConvTranspose3d(4, 4, 2, 2, groups=2)},
        {"down": torch.nn.utils.parametrizations.weight_norm(nn.Conv3d(2, 4, 3, 2, 1))},
        {"down": torch.nn.utils.spectral_norm(nn.Conv3d(2, 4, 3, 2, 1))},
        {"up": torch.nn.utils.spectral_norm(nn.ConvTranspose3d(4, 3, 2, 2))},
    ],
    ids=[
        "parameters of its own",
        "PReLU",
        "running statistics",
        "subclass",
        "reflected",
        "overlapping",
        "groups",
        "weight norm",
        "spectral norm",
        "spectral norm, transposed",
    ],
)
def test_what_it_does_not_know_it_leaves_alone(other: dict[str, nn.Module]) -> None:
    assert packed(small_network(), torch.float32) is not None
    assert packed(small_network(**other), torch.float32) is None


def test_without_onednn_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert packed(small_network(), torch.float32) is None


def test_one_voxel_has_no_deviation() -> None:
    twin = packed(small_network(), torch.float32)
    assert twin is not None
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        twin(X[:, :, :2, :2, :2])


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16")
@given(networks())
@settings(max_examples=40)
def test_every_network_computes_in_bf16(given: tuple[nn.Module, Tensor]) -> None:
    network, x = given
    twin = packed(network, torch.bfloat16)
    assert twin is not None
    expected = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = network(x)
    rounding = (theirs - expected).abs().mean()
    assert (twin(x) - expected).abs().mean() <= 3 * rounding + 0.05 * expected.abs().mean()


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16")
def test_bf16_is_that_of_autocast() -> None:
    network = small_network()
    twin = packed(network, torch.bfloat16)
    assert twin is not None
    with torch.autocast("cpu", torch.bfloat16):
        expected = network(X)
    found = twin(X)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
