"""What augmentation does to the labels that a cascade's previous stage predicted."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segplug.protocols import AugmentationContext, Batch
from segplug_builtin.augmentations.cascade import OPERATORS, CascadeEffects, dilate, draw_cascade, erode, spoil
from segplug_builtin.augmentations.nnunet import NNUNetAugmentation

EFFECTS = CascadeEffects()


def slowly_dilated(mask: np.ndarray, diameter: int) -> np.ndarray:
    """Every voxel that has one of the mask within the ball around it."""
    found = np.zeros_like(mask)
    reach = range(-(diameter // 2), (diameter + 1) // 2 + 1)
    for offset in product(reach, repeat=mask.ndim):
        if sum((2 * step - diameter % 2) ** 2 for step in offset) <= diameter**2:
            for at in np.argwhere(mask):
                to = at - offset
                if (to >= 0).all() and (to < mask.shape).all():
                    found[tuple(to)] = True
    return found


@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=3),
    diameter=st.integers(2, 5),
    seed=st.integers(0, 99),
)
def test_dilation_with_a_ball(shape: list[int], diameter: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random(shape) < 0.05
    np.testing.assert_array_equal(dilate(torch.from_numpy(mask), diameter).numpy(), slowly_dilated(mask, diameter))
    np.testing.assert_array_equal(erode(torch.from_numpy(~mask), diameter).numpy(), ~slowly_dilated(mask, diameter))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("diameter", [2, 7, 15])
def test_only_the_surroundings_are_worked_on(operator: str, diameter: int) -> None:
    """The same as on the whole patch, at its border too."""
    labels = torch.zeros(1, 1, 40, 36, 30, dtype=torch.int16)
    labels[0, 0, :9, 20:30, 5:12] = labels[0, 0, 12:20, 30:, 20:] = 1
    labels[0, 0, 10:14, 20:30, 5:12] = 2
    before = labels.clone()[0, 0]
    mask = before == 1
    steps = {"dilate": (dilate,), "erode": (erode,), "close": (dilate, erode), "open": (erode, dilate)}[operator]
    after = mask
    for step in steps:
        after = step(after, diameter)
    wanted = torch.where(after, 1, torch.where(mask, 0, before))
    spoil(labels, [{"operators": ((1, operator, diameter),)}], EFFECTS)
    assert torch.equal(labels[0, 0], wanted.to(torch.int16))


def test_a_label_that_is_not_there_changes_nothing() -> None:
    labels = torch.zeros(1, 1, 8, 8, 8, dtype=torch.int16)
    spoil(labels, [{"operators": tuple((1, name, 4) for name in OPERATORS), "drops": ((1, 0.5),)}], EFFECTS)
    assert not labels.any()


def test_small_components_vanish_and_large_ones_stay() -> None:
    labels = torch.zeros(3, 1, 10, 10, 10, dtype=torch.int16)
    labels[:, 0, :6] = 1  # more than 15 % of the patch
    labels[:, 0, 8, :2, :2] = labels[:, 0, 9, 2, 2] = 1  # one component by a corner
    labels[:, 0, 8:, 7:, 7:] = 1
    labels[:, 0, 7, 5, 5] = 2
    spoil(labels, [{"drops": ((1, 0.1),)}, {"drops": ((1, 0.9),)}, {"drops": ((2, 0.0),)}], EFFECTS)
    assert (labels[:, 0, :6] == 1).all()
    assert labels[0, 0, 8, 0, 0] == labels[0, 0, 9, 2, 2] == 0
    assert labels[0, 0, 8, 8, 8] == 1
    assert labels[1, 0, 8, 0, 0] == 1
    assert labels[1, 0, 8, 8, 8] == 0
    assert labels[2, 0, 7, 5, 5] == 0


def test_how_often_and_how() -> None:
    """Within four standard deviations of nnU-Net's probabilities."""
    random, count = np.random.default_rng(0), 4000
    drawn = [draw_cascade(random, (3, 7), EFFECTS) for _ in range(count)]
    operators = [entry for one in drawn for entry in one.get("operators", ())]
    drops = [entry for one in drawn for entry in one.get("drops", ())]
    for found, expected in ((operators, 0.4), (drops, 0.2)):
        assert len(found) == pytest.approx(count * expected, abs=4 * np.sqrt(count * 2 * expected * 0.5))
        assert np.mean([entry[0] == 3 for entry in found]) == pytest.approx(0.5, abs=2 / np.sqrt(len(found)))
    assert {entry[1] for entry in operators} == set(OPERATORS)
    assert {entry[2] for entry in operators} == set(range(2, 16))  # radius 1 to 7.5
    assert draw_cascade(random, (), EFFECTS) == {}


def test_the_rest_of_the_batch_is_the_same_with_a_cascade() -> None:
    """The cascade's parameters are drawn last, and nothing but the previous stage's labels is changed by them."""
    patch = (16, 18, 20)
    plain = NNUNetAugmentation(AugmentationContext(patch, 1))
    cascade = NNUNetAugmentation(AugmentationContext(patch, 1, labels=(1, 2)))
    size = plain.source_size()
    generator = torch.Generator().manual_seed(0)
    data = torch.rand((8, 1, *size), generator=generator)
    target = (data * 3).to(torch.int16)
    target[:, :, :2] = -1
    first = [plain.draw(np.random.default_rng(i)) for i in range(8)]
    second = [cascade.draw(np.random.default_rng(i)) for i in range(8)]
    without = plain(Batch(data, target), first)
    batch = Batch(data, target, previous=target.clone())
    changed = cascade(batch, second)
    assert torch.equal(changed.data, without.data)
    assert torch.equal(changed.target, without.target)
    assert changed.previous is not None
    assert torch.equal(batch.previous, target)  # what was given is left as it was
    spoilt = [i for i, drawn in enumerate(second) if "operators" in drawn or "drops" in drawn]
    assert spoilt
    for sample in range(8):
        if sample not in spoilt:
            assert torch.equal(changed.previous[sample], changed.target[sample])
    assert any(not torch.equal(changed.previous[i], changed.target[i]) for i in spoilt)
    assert changed.previous.min() >= 0
