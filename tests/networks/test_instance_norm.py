"""Instance norm computes what torch's does, and an in-place nonlinearity after it copies nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from segplug_builtin.architectures.blocks import ConvBlock, LayerStyle
from segplug_builtin.architectures.instance_norm import OWN_OUTPUT

SHAPES = st.lists(st.integers(2, 5), min_size=1, max_size=3)


@given(batch=st.integers(1, 3), channels=st.integers(1, 4), space=SHAPES, data=st.data())
def test_values_and_gradients_are_those_of_torch(
    batch: int, channels: int, space: list[int], data: st.DataObject
) -> None:
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    affine, frozen = data.draw(st.booleans()), data.draw(st.booleans())
    plain = getattr(nn, f"InstanceNorm{len(space)}d")(channels, eps=1e-5, affine=affine)
    if affine:
        nn.init.normal_(plain.weight)
        nn.init.normal_(plain.bias)
        plain.weight.requires_grad_(not frozen)
    if dtype == torch.float64:
        plain.double()
    ours = OWN_OUTPUT[type(plain)](channels, eps=1e-5, affine=affine)
    ours.to(dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    ours.load_state_dict(plain.state_dict())
    ours.requires_grad_(True)
    if affine:
        ours.weight.requires_grad_(not frozen)
    x = torch.randn(batch, channels, *space).to(dtype)
    if data.draw(st.booleans()):
        x = x.transpose(2, -1)  # not contiguous
    found = [_through(norm, x) for norm in (ours, plain)]
    for mine, theirs in zip(*found, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.equal(mine, theirs)


def _through(norm: nn.Module, x: Tensor) -> list[Tensor | None]:
    x = x.clone().requires_grad_()
    y = nn.functional.leaky_relu(norm(x), 0.01, inplace=True)
    y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype))
    return [y.detach(), x.grad, *(parameter.grad for parameter in norm.parameters())]


@pytest.mark.parametrize(("conv", "norm"), [(nn.Conv2d, nn.InstanceNorm2d), (nn.Conv3d, nn.InstanceNorm3d)])
def test_blocks_have_no_copied_slices(conv: type[nn.Module], norm: type[nn.Module]) -> None:
    style = LayerStyle(
        conv,
        norm=norm,
        norm_options={"affine": True},
        nonlinearity=nn.LeakyReLU,
        nonlinearity_options={"inplace": True},
    )
    block = ConvBlock(style, 2, 3, 3)
    assert isinstance(block.norm, norm)
    assert block.state_dict().keys() >= {"norm.weight", "norm.bias"}
    assert "torch::autograd::CopySlices" not in _functions(block(torch.randn(2, 2, *[4] * style.dimensions)))
    # what it is there for: torch's own would have them
    block.all_modules[1] = norm(3, affine=True)
    assert "torch::autograd::CopySlices" in _functions(block(torch.randn(2, 2, *[4] * style.dimensions)))


def _functions(y: Tensor) -> set[str]:
    found, left = set(), [y.grad_fn]
    while left:
        function = left.pop()
        if function is not None:
            found.add(function.name())
            left += [following for following, _ in function.next_functions]
    return found


def test_torchs_own_where_nothing_is_learnt_or_something_else_is_asked_for() -> None:
    norm = OWN_OUTPUT[nn.InstanceNorm2d](3, affine=True)
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        assert torch.equal(norm(x), nn.functional.instance_norm(x))
    running = OWN_OUTPUT[nn.InstanceNorm2d](3, track_running_stats=True)
    running(x)
    assert not torch.equal(running.running_mean, torch.zeros(3))
    with pytest.raises(ValueError, match="Expected more than 1 spatial element"):
        norm(torch.randn(2, 3, 1, 1))
    with pytest.raises(ValueError, match="4D"):
        norm(torch.randn(2, 3, 4, 4, 4))


def test_compiled_and_exported_it_is_an_ordinary_layer() -> None:
    norm = OWN_OUTPUT[nn.InstanceNorm2d](3, affine=True)
    x = torch.randn(2, 3, 4, 4)
    program = torch.export.export(norm, (x,), strict=True)
    assert torch.allclose(program.module()(x), norm(x))
