"""clDice against morphology by SciPy and skeletons that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from segplug_sparse_losses.cldice import DiceClDice, soft_skeleton
from torch import Tensor


def thinned(image: NDArray[np.float64], iterations: int) -> NDArray[np.float64]:
    """Algorithm 1 of the paper by SciPy's grey morphology."""
    cross = ndimage.generate_binary_structure(image.ndim, 1)
    cube = (3,) * image.ndim

    def eroded(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.grey_erosion(values, footprint=cross, mode="constant", cval=np.inf))

    def opened(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.grey_dilation(eroded(values), size=cube, mode="constant", cval=-np.inf))

    skeleton = np.maximum(image - opened(image), 0)
    for _ in range(iterations):
        image = eroded(image)
        skeleton += (1 - skeleton) * np.maximum(image - opened(image), 0)
    return skeleton


@pytest.mark.parametrize("shape", [(12, 9), (7, 8, 9)])
@pytest.mark.parametrize("iterations", [1, 3])
def test_the_skeleton_is_that_of_grey_morphology(shape: tuple[int, ...], iterations: int) -> None:
    image = np.random.default_rng(0).random(shape)
    found = soft_skeleton(torch.tensor(image)[None, None], iterations)[0, 0].numpy()
    np.testing.assert_allclose(found, thinned(image, iterations), atol=1e-12)


def test_the_skeleton_of_a_thick_line_is_its_centre() -> None:
    line = torch.zeros(1, 1, 20, 30)
    line[:, :, 8:13] = 1  # five wide, from border to border
    centre = torch.zeros_like(line)
    centre[:, :, 10] = 1
    assert torch.equal(soft_skeleton(line, 3), centre)
    assert not soft_skeleton(line, 1).any(), "fewer iterations than the radius do not reach the centre"
    assert torch.equal(soft_skeleton(centre, 3), centre), "a centre line is its own skeleton"


def drawn(labels: NDArray[np.int64], certainty: float = 60.0) -> Tensor:
    """Logits (1, 2, *spatial) that are certain of these labels."""
    target = torch.tensor(labels)[None, None]
    return torch.zeros(1, 2, *labels.shape).scatter_(1, target, certainty)


def test_cldice_is_the_paper_s_formula() -> None:
    truth, prediction = np.zeros((2, 16, 16), np.int64)
    truth[6:9, 1:15] = 1
    prediction[7:10, 3:12] = 1
    logits, target = drawn(prediction), torch.tensor(truth)[None, None]
    lines = thinned(prediction.astype(float), 3), thinned(truth.astype(float), 3)
    precision = ((lines[0] * truth).sum() + 1) / (lines[0].sum() + 1)
    sensitivity = ((lines[1] * prediction).sum() + 1) / (lines[1].sum() + 1)
    cldice = 2 * precision * sensitivity / (precision + sensitivity)
    dice = 2 * (truth * prediction).sum() / (truth.sum() + prediction.sum())
    for alpha in (0.0, 0.5, 1.0):
        found = float(DiceClDice(alpha=alpha, weight_ce=0)(logits, target))
        assert found == pytest.approx((1 - alpha) * (1 - dice) + alpha * (1 - cldice), abs=1e-5)
    with_entropy = float(DiceClDice(alpha=1.0, weight_ce=2.0)(logits, target))
    entropy = float(torch.nn.functional.cross_entropy(logits, target[:, 0]))
    assert with_entropy == pytest.approx(1 - cldice + 2 * entropy, rel=1e-5)


def test_a_break_costs_more_than_as_many_voxels_at_the_side() -> None:
    truth = np.zeros((15, 40), np.int64)
    truth[6:9, 2:38] = 1
    broken, narrow = truth.copy(), truth.copy()
    broken[6:9, 18:22] = 0
    narrow[6, 10:22] = 0
    assert broken.sum() == narrow.sum()
    target = torch.tensor(truth)[None, None]

    def cost(labels: NDArray[np.int64], alpha: float) -> float:
        return float(DiceClDice(alpha=alpha, weight_ce=0)(drawn(labels), target))

    assert cost(broken, 0.0) == pytest.approx(cost(narrow, 0.0))
    assert cost(broken, 0.5) > cost(narrow, 0.5) + 0.01


def test_batch_dice_is_over_the_lines_of_all_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 10, 10, generator=generator)
    target = torch.randint(0, 3, (2, 1, 10, 10), generator=generator)
    beside = torch.cat([*logits], 1)[None], torch.cat([*target], 1)[None]
    of_batch, of_samples = (float(DiceClDice(batch_dice=each)(logits, target)) for each in (True, False))
    assert of_batch != of_samples
    mean = np.mean([float(DiceClDice(batch_dice=True)(logits[i : i + 1], target[i : i + 1])) for i in range(2)])
    assert of_samples == pytest.approx(float(mean), abs=1e-6)
    # side by side the samples are one; without clDice, as skeletons would see the seam
    assert float(DiceClDice(alpha=0)(*beside)) == pytest.approx(
        float(DiceClDice(alpha=0, batch_dice=True)(logits, target)), abs=1e-5
    )


@pytest.mark.parametrize("shape", [(6, 7), (5, 4, 6)])
def test_its_gradient_is_the_derivative(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 2, *shape, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.randint(0, 2, (2, 1, *shape), generator=generator)
    loss = DiceClDice(iterations=2)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits)


def test_voxels_that_nobody_annotated_change_nothing() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 2, 9, 9, generator=generator)
    mask = torch.rand(2, 1, 9, 9, generator=generator) < 0.6
    target = torch.where(mask, torch.randint(0, 2, (2, 1, 9, 9), generator=generator), 0)
    loss = DiceClDice()
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target, mask)
    value.backward()
    assert leaf.grad is not None
    assert not leaf.grad[~mask.expand_as(leaf)].any()
    assert leaf.grad[mask.expand_as(leaf)].any()
    other = torch.where(mask, logits, torch.full_like(logits, -40.0))
    assert float(loss(other, target, mask)) == pytest.approx(value.item(), abs=1e-6)


def test_a_class_that_is_not_there_costs_little_and_nothing_breaks() -> None:
    target = torch.zeros(1, 1, 8, 8, 8, dtype=torch.int64)
    right = DiceClDice()(drawn(target[0, 0].numpy()), target)
    assert float(right) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"alpha": 1.5}, "alpha 1.5; expected 0 to 1"),
        ({"iterations": 0}, "iterations 0; expected a whole number from 1 on"),
        ({"iterations": 2.5}, "iterations 2.5"),
        ({"weight_ce": -0.1}, "weight_ce -0.1; expected 0 or more"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DiceClDice(**options)  # type: ignore[arg-type]
