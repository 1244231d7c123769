"""Losses that tell a batch's loss from numbers of its samples: however the samples are divided."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from segplug.protocols import SampleWiseLoss
from segplug_builtin.losses import DiceCrossEntropy, DiceTopK, SoftDice
from segplug_builtin.voxel_losses import CrossEntropy, TopK

PAGE = Path(__file__).parents[2] / "docs" / "multi-gpu.md"
WEIGHTS = [0.5, 1.0, 2.0]


def of_the_page() -> nn.Module:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict = {"nn": nn, "torch": torch}
    exec(block, names)
    return names["SoftDice"]()


LOSSES = [
    pytest.param(partial(loss, **options), id=f"{loss.__name__} {options}")
    for loss in (DiceCrossEntropy, SoftDice, DiceTopK, CrossEntropy, TopK)
    for options in ({}, {"class_weights": WEIGHTS})
]


def divided(loss, logits, *others):
    parts = [
        loss.of_samples(logits[share], *(None if other is None else other[share] for other in others))
        for share in (slice(0, 2), slice(2, 3))
    ]
    return loss.of_batch(*(torch.cat(part) for part in zip(*parts, strict=True)))


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_built_in_losses(make, regions, masked):
    torch.manual_seed(0)
    loss = make(regions=regions)
    assert isinstance(loss, SampleWiseLoss)
    logits = torch.randn(3, 3, 5, 6, 7, requires_grad=True)
    target = torch.randint(0, 3, (3, 1, 5, 6, 7))
    target = (torch.rand(3, 3, 5, 6, 7) < 0.3).float() if regions else target
    # samples of which unequal parts are annotated, one of them not at all
    mask = torch.rand(3, 1, 5, 6, 7) < torch.tensor([0.9, 0.0, 0.1]).view(3, 1, 1, 1, 1) if masked else None
    whole = loss(logits, target, mask)
    (expected,) = torch.autograd.grad(whole, logits)
    value = divided(loss, logits, target, mask)
    (found,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(value, whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_the_loss_of_the_page():
    torch.manual_seed(0)
    loss, logits, target = of_the_page(), torch.randn(3, 3, 5, 6), torch.randint(0, 3, (3, 1, 5, 6))
    assert isinstance(loss, SampleWiseLoss)
    torch.testing.assert_close(divided(loss, logits, target), loss(logits, target))
