"""Optimisers and learning rate schedules against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segplug.kernel import Kernel
from segplug.model import ComponentRef
from segplug_builtin.optimizers import adan
from segplug_builtin.schedules import constant, cosine, poly

REGISTRY = Kernel(discover=False).registry


def adan_by_hand(start: float, gradients: list[float], lr: float, decay: float) -> float:
    """The averages of Xie et al. 2022, written out for one number."""
    b1, b2, b3, eps = 0.02, 0.08, 0.01, 1e-8
    weight, m, v, n, before = start, 0.0, 0.0, 0.0, 0.0
    for step, g in enumerate(gradients, start=1):
        if step > 1:
            m = (1 - b1) * m + b1 * g
            v = (1 - b2) * v + b2 * (g - before)
            n = (1 - b3) * n + b3 * (g + (1 - b2) * (g - before)) ** 2
        m_, v_, n_ = (x / (1 - (1 - b) ** step) for x, b in ((m, b1), (v, b2), (n, b3)))
        weight = (weight - lr / (math.sqrt(n_) + eps) * (m_ + (1 - b2) * v_)) / (1 + lr * decay)
        before = g
    return weight


@given(gradients=st.lists(st.floats(-3, 3), min_size=1, max_size=8), decay=st.sampled_from([0.0, 0.1]))
def test_adan(gradients: list[float], decay: float) -> None:
    weight = torch.nn.Parameter(torch.tensor([0.7], dtype=torch.float64))
    optimizer = adan([weight], lr=0.01, weight_decay=decay)
    for value in gradients:
        weight.grad = torch.tensor([value], dtype=torch.float64)
        optimizer.step()
    assert weight.item() == pytest.approx(adan_by_hand(0.7, gradients, 0.01, decay), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adan"])
def test_optimizers_go_on_from_their_state(name: str) -> None:
    def steps(weight: torch.Tensor, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            weight.grad = torch.full((4,), math.sin(step + 1)) * torch.arange(4)
            optimizer.step()

    def fresh() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        weight = torch.nn.Parameter(torch.ones(4))
        return weight, REGISTRY.build("optimizers", name)([weight], lr=0.1, weight_decay=0.01)

    whole, optimizer = fresh()
    steps(whole, optimizer, 0, 6)
    part, optimizer = fresh()
    steps(part, optimizer, 0, 3)
    resumed, second = fresh()
    resumed.data.copy_(part.data)
    second.load_state_dict(optimizer.state_dict())
    steps(resumed, second, 3, 6)
    assert torch.equal(resumed, whole)


def test_options_of_optimizers() -> None:
    built = REGISTRY.build("optimizers", ComponentRef("adamw", {"amsgrad": True, "beta2": 0.98}))
    group = built([torch.nn.Parameter(torch.ones(1))], lr=1.0, weight_decay=0.0).param_groups[0]
    assert group["amsgrad"]
    assert group["betas"] == (0.9, 0.98)


@given(epochs=st.integers(1, 60), warmup=st.integers(0, 20), data=st.data())
def test_schedules_rise_then_fall(epochs: int, warmup: int, data: st.DataObject) -> None:
    epoch = data.draw(st.integers(0, epochs - 1))
    for schedule in (poly, cosine, constant):
        value = schedule(0.5, epoch=epoch, epochs=epochs, warmup_epochs=warmup)
        assert 0 < value <= 0.5
        if epoch < warmup:
            assert value == pytest.approx(0.5 * (epoch + 1) / warmup)
        elif epoch == warmup:
            assert value == 0.5


def test_cosine_is_half_in_the_middle() -> None:
    assert cosine(1.0, epoch=50, epochs=100) == pytest.approx(0.5)
    assert cosine(1.0, epoch=99, epochs=100, end=0.1) == pytest.approx(0.1, abs=1e-3)
