"""Batch norms whose statistics are of the samples of all processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn

from segplug.runtime.data_parallel import synchronised_norms


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(2, 3, 40, 56, 40), (4, 3, 64, 64)])
def test_statistics_and_gradients_are_torchs_own(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    # 180 000 voxels far from zero: bf16 has 8 bits, and would lose both their number and their sum
    generator = torch.Generator().manual_seed(1)
    x = (torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 20).to(dtype)
    weights = torch.promote_types(dtype, torch.float32)
    own = nn.Sequential((nn.BatchNorm3d if len(shape) == 5 else nn.BatchNorm2d)(3).to(weights))
    ours = synchronised_norms(nn.Sequential(type(own[0])(3).to(weights)))
    ours.load_state_dict(own.state_dict())
    found = []
    for network in (own, ours):
        image = x.clone().requires_grad_()
        out = network(image)
        assert out.dtype == dtype
        (out.to(torch.float64) ** 3).mean().backward()
        gradients = [image.grad, *(weight.grad for weight in network.parameters())]
        found.append([out, *network.state_dict().values(), *gradients])
    near = {"rtol": 0.02, "atol": 0.02} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, **near)


@pytest.mark.usefixtures("alone")
def test_running_statistics_of_bf16_are_those_of_float32() -> None:
    x = torch.randn((2, 3, 40, 56, 40), generator=torch.Generator().manual_seed(2)).bfloat16()
    wide, narrow = (synchronised_norms(nn.Sequential(nn.BatchNorm3d(3))) for _ in range(2))
    wide(x.float())
    narrow(x)
    for expected, got in zip(wide.state_dict().values(), narrow.state_dict().values(), strict=True):
        torch.testing.assert_close(got, expected)
