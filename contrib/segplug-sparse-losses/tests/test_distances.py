"""The boundary loss against distances counted by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from segplug_sparse_losses.boundary import DiceCrossEntropyBoundary, signed_distances
from torch import Tensor

from segplug import ComponentRef
from segplug.kernel import Kernel


def by_hand(inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The definition, voxel by voxel."""
    places = list(itertools.product(*map(range, inside.shape)))

    def nearest(place: tuple[int, ...], among: NDArray[np.bool_]) -> float:
        return min((math.dist(place, other) for other in places if among[other]), default=math.nan)

    result = np.zeros(inside.shape)
    if inside.any() and outside.any():
        for place in places:
            if inside[place]:
                result[place] = 1 - nearest(place, outside)
            elif outside[place]:
                result[place] = nearest(place, inside)
    return result


@pytest.mark.parametrize("shape", [(9, 7), (5, 6, 4)])
@pytest.mark.parametrize("masked", [False, True])
def test_distances_are_those_of_the_definition(shape: tuple[int, ...], masked: bool) -> None:
    random = np.random.default_rng(3)
    objects = random.random((2, 2, *shape)) < 0.3
    mask = random.random((2, 1, *shape)) < 0.7 if masked else np.ones((2, 1, *shape), bool)
    objects &= mask  # as targets are: where the ignore label stands they hold background
    found = signed_distances(torch.tensor(objects).float(), torch.tensor(mask) if masked else None).numpy()
    for sample, channel in np.ndindex(2, 2):
        inside = objects[sample, channel]
        np.testing.assert_allclose(found[sample, channel], by_hand(inside, ~inside & mask[sample, 0]), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_a_boundary_all_distances_are_zero(value: float) -> None:
    assert not signed_distances(torch.full((1, 1, 6, 6), value)).any()


def test_the_boundary_term_is_the_mean_of_probability_times_distance() -> None:
    logits, target = random_case((6, 5))
    alone = DiceCrossEntropyBoundary(weight_dice=0, weight_ce=0, weight_boundary=1)(logits, target)
    probability = logits.softmax(1).numpy()
    terms = [
        probability[sample, label] * by_hand(target[sample, 0].numpy() == label, target[sample, 0].numpy() != label)
        for sample in range(len(target))
        for label in (1, 2)
    ]
    assert float(alone) == pytest.approx(np.mean(terms), abs=1e-6)


def test_its_minimum_is_the_truth() -> None:
    """The truth costs less than any other hard segmentation that differs in one voxel beyond the outermost layer."""
    target = torch.zeros(1, 1, 9, 9, dtype=torch.int64)
    target[:, :, 2:7, 2:7] = 1
    loss = DiceCrossEntropyBoundary(weight_dice=0, weight_ce=0, weight_boundary=1)

    def cost(labels: Tensor) -> float:
        return float(loss(torch.zeros(1, 2, 9, 9).scatter_(1, labels, 200.0), target))

    best = cost(target)
    assert best < 0
    for place in itertools.product(range(9), range(9)):
        other = target.clone()
        other[0, 0, place[0], place[1]] = 1 - other[0, 0, place[0], place[1]]
        assert cost(other) >= best


def test_a_miss_that_is_nearer_costs_less_where_dice_sees_no_difference() -> None:
    target = torch.zeros(1, 1, 24, 24, dtype=torch.int64)
    target[:, :, 2:5, 2:5] = 1
    near, far = torch.zeros_like(target), torch.zeros_like(target)
    near[:, :, 7:10, 7:10], far[:, :, 18:21, 18:21] = 1, 1

    def cost(labels: Tensor, weight: float) -> float:
        logits = torch.zeros(1, 2, 24, 24).scatter_(1, labels, 10.0)
        return float(DiceCrossEntropyBoundary(weight_boundary=weight)(logits, target))

    assert cost(near, 0) == pytest.approx(cost(far, 0), abs=1e-6)
    assert cost(near, 0.01) < cost(far, 0.01)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 3.0]])
def test_without_the_boundary_term_it_is_the_loss_it_replaces(
    masked: bool, regions: bool, batch_dice: bool, weights: list[float] | None
) -> None:
    logits, target = random_case((6, 5, 4))
    if regions:
        target = (torch.rand(2, 3, 6, 5, 4, generator=torch.Generator().manual_seed(5)) < 0.3).float()
    mask = torch.rand(2, 1, 6, 5, 4, generator=torch.Generator().manual_seed(6)) < 0.7 if masked else None
    options = {"class_weights": weights, "weight_ce": 0.7, "weight_dice": 1.3, "smooth": 0.01}
    registry = Kernel().registry
    replaced, replacing = (
        registry.build("losses", ComponentRef(name, given), batch_dice=batch_dice, regions=regions, classes=3)
        for name, given in (("builtin:dice_ce", options), ("dice_ce", {**options, "weight_boundary": 0.0}))
    )
    assert type(replacing) is DiceCrossEntropyBoundary
    values, gradients = [], []
    for loss in (replaced, replacing):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, target, mask=mask)
        value.backward()
        values.append(value.item())
        gradients.append(leaf.grad)
    assert values[1] == pytest.approx(values[0], abs=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-4)


def test_its_gradient_is_the_derivative() -> None:
    logits, target = random_case((4, 5))
    loss = DiceCrossEntropyBoundary(weight_boundary=0.5)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.double().requires_grad_())


def test_voxels_that_nobody_annotated_change_nothing() -> None:
    logits, target = random_case((6, 5))
    mask = torch.rand(2, 1, 6, 5, generator=torch.Generator().manual_seed(7)) < 0.6
    target = torch.where(mask, target, 0)
    loss = DiceCrossEntropyBoundary(weight_boundary=0.5)
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target, mask)
    value.backward()
    assert leaf.grad is not None
    assert not leaf.grad[~mask.expand_as(leaf)].any()
    assert leaf.grad[mask.expand_as(leaf)].any()
    other = torch.where(mask, logits, torch.full_like(logits, 40.0))
    assert float(loss(other, target, mask)) == pytest.approx(value.item(), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"weight_boundary": -1.0}, "weight_boundary -1.0; expected 0 or more"),
        ({"smooth": float("nan")}, "smooth nan; expected 0 or more"),
        ({"class_weights": [1.0, 2.0]}, r"class_weights \[1.0, 2.0\]; expected one number above 0 .*\(3\)"),
        ({"class_weights": [1.0, 0.0, 1.0]}, "expected one number above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DiceCrossEntropyBoundary(classes=3, **options)  # type: ignore[arg-type]


def random_case(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Logits (2, 3, *shape) and labels (2, 1, *shape)."""
    generator = torch.Generator().manual_seed(4)
    return torch.randn(2, 3, *shape, generator=generator), torch.randint(0, 3, (2, 1, *shape), generator=generator)
