"""MONAI's losses with what segplug tells them, against sums written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from segplug_monai.losses import DiceHausdorff, MaskedFocal, generalized_dice, tversky
from torch import Tensor

from segplug.kernel import Kernel

CERTAIN = 30.0
"""Logit with which segplug marks voxels that nobody annotated as background, for a loss that takes no mask."""


def case(regions: bool, shape: tuple[int, ...] = (6, 7)) -> tuple[Tensor, Tensor]:
    """Logits (2, 3, *shape), and labels or regions."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, *shape, generator=generator)
    if regions:
        return logits, (torch.rand(2, 3, *shape, generator=generator) < 0.4).float()
    return logits, torch.randint(0, 3, (2, 1, *shape), generator=generator)


def scored(logits: Tensor, target: Tensor, regions: bool) -> tuple[Tensor, Tensor]:
    """Probabilities and truth of what counts: all regions, or all labels but the background."""
    if regions:
        return logits.sigmoid(), target
    return logits.softmax(1)[:, 1:], torch.zeros_like(logits).scatter_(1, target, 1.0)[:, 1:]


def axes_of(logits: Tensor, batch_dice: bool) -> tuple[int, ...]:
    return (*((0,) if batch_dice else ()), *range(2, logits.ndim))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 6)])
def test_tversky(regions: bool, batch_dice: bool, shape: tuple[int, ...]) -> None:
    logits, target = case(regions, shape)
    p, t = scored(logits, target, regions)
    axes = axes_of(logits, batch_dice)
    both, over, under = (p * t).sum(axes), (p * (1 - t)).sum(axes), ((1 - p) * t).sum(axes)
    wanted = 1 - ((both + 1e-5) / (both + 0.3 * over + 0.7 * under + 1e-5)).mean()
    torch.testing.assert_close(tversky(batch_dice, regions)(logits, target), wanted)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize(("weighting", "power"), [("square", 2), ("simple", 1), ("uniform", 0)])
def test_generalised_dice(regions: bool, batch_dice: bool, weighting: Any, power: int) -> None:
    logits, target = case(regions)
    p, t = scored(logits, target, regions)
    axes = axes_of(logits, batch_dice)
    weights = 1 / t.sum(axes) ** power
    overlap, both = (weights * (p * t).sum(axes)).sum(-1), (weights * (p + t).sum(axes)).sum(-1)
    wanted = 1 - ((2 * overlap + 1e-5) / (both + 1e-5)).mean()
    torch.testing.assert_close(generalized_dice(batch_dice, regions, weighting)(logits, target), wanted)


@pytest.mark.parametrize("masked", [False, True])
def test_focal_of_labels(masked: bool) -> None:
    logits, target = case(False)
    mask = torch.rand(2, 1, 6, 7, generator=torch.Generator().manual_seed(1)) < 0.6 if masked else None
    log_p = logits.log_softmax(1).gather(1, target)
    weights = torch.tensor([0.5, 1.0, 2.0])
    each = -weights[target] * (1 - log_p.exp()) ** 2 * log_p
    counted = each if mask is None else each[mask]
    loss = MaskedFocal(classes=3, class_weights=[0.5, 1.0, 2.0])
    torch.testing.assert_close(loss(logits, target, mask), counted.mean() / 3)


@pytest.mark.parametrize("masked", [False, True])
def test_focal_of_regions(masked: bool) -> None:
    logits, target = case(True)
    mask = torch.rand(2, 1, 6, 7, generator=torch.Generator().manual_seed(1)) < 0.6 if masked else None
    right = torch.where(target > 0, logits.sigmoid(), 1 - logits.sigmoid())
    each = -((1 - right) ** 2) * right.log()
    counted = each if mask is None else each[mask.expand_as(each)]
    torch.testing.assert_close(MaskedFocal(regions=True)(logits, target, mask), counted.mean())


def test_focal_is_deaf_to_certainty_where_nobody_annotated() -> None:
    logits, target = case(False)
    mask = torch.ones(2, 1, 6, 7, dtype=torch.bool)
    mask[:, :, :3] = False
    logits[:, :, :3] = torch.tensor([torch.inf, -torch.inf, 0.0]).view(1, 3, 1, 1)
    leaf = logits.requires_grad_()
    value = MaskedFocal()(leaf, torch.where(mask, target, 0), mask)
    assert value.isfinite()


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("log", [False, True])
def test_hausdorff(regions: bool, log: bool) -> None:
    logits, target = case(regions, (9, 10))
    p, t = scored(logits, target, regions)

    def field(values: Tensor) -> np.ndarray[Any, Any]:
        inside = values.numpy() > 0.5
        if not inside.any() or inside.all():
            return np.zeros(inside.shape)
        return np.asarray(distance_transform_edt(inside) + distance_transform_edt(~inside))

    terms = []
    for sample in range(2):
        for channel in range(p.shape[1]):
            one, other = p[sample, channel], t[sample, channel]
            distances = field(one) ** 2 + field(other) ** 2
            terms.append(((one - other).numpy() ** 2 * distances).mean())
    wanted = np.log(np.mean(terms) + 1) if log else np.mean(terms)
    found = DiceHausdorff(regions=regions, log=log, weight_dice=0)(logits, target)
    assert float(found) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("make", [tversky, generalized_dice, DiceHausdorff])
def test_voxels_that_nobody_annotated_add_nothing(make: Any) -> None:
    """A patch with a margin of certain background, as segplug gives it, costs what the inner part costs."""
    logits, target = case(False, (8, 8))
    logits[:, :, :, -1], target[:, :, :, -1] = torch.tensor([CERTAIN, -CERTAIN, -CERTAIN]).view(3, 1), 0
    logits[:, :, :, 0], target[:, :, :, 0] = torch.tensor([CERTAIN, -CERTAIN, -CERTAIN]).view(3, 1), 0
    wider = torch.nn.functional.pad(target, (5, 0))
    margin = torch.zeros(2, 3, 8, 5) - CERTAIN
    margin[:, 0] = CERTAIN
    loss = make(weight_hausdorff=0.0) if make is DiceHausdorff else make()
    torch.testing.assert_close(loss(torch.cat([margin, logits], 3), wider), loss(logits, target))


@pytest.mark.parametrize(
    ("make", "options", "told"),
    [
        (tversky, {"alpha": -0.1}, "alpha -0.1; expected 0 or more"),
        (generalized_dice, {"weighting": "cubic"}, "weighting 'cubic'; expected square, simple or uniform"),
        (MaskedFocal, {"gamma": 0.5}, "gamma 0.5; expected 0, or a number from 1 on"),
        (MaskedFocal, {"classes": 3, "class_weights": [1.0, 2.0]}, "expected 3 numbers above 0"),
        (DiceHausdorff, {"alpha": -2.0}, "alpha -2.0; expected 0 or more"),
    ],
)
def test_options_that_cannot_be_are_refused(make: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make(**options)


def test_nothing_built_in_is_replaced() -> None:
    replacing = [inforce.plugin.distribution for _, inforce in Kernel().registry.replacements()]
    assert "segplug-monai" not in replacing
