"""The loss and what is done around it, against formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segplug.errors import PluginError
from segplug.model import LabelSet
from segplug.runtime.deep_supervision import SupervisedLoss, scale_weights
from segplug.runtime.training_targets import count_overlap, downsample, encode_regions
from segplug_builtin.losses import DiceCrossEntropy

LABELS = LabelSet({"background": 0, "a": 1, "b": 2})
SPARSE = LabelSet({"background": 0, "a": 1, "b": 2, "ignore": 3})
REGIONS = LabelSet({"background": 0, "whole": (1, 2), "core": (2,)}, (1, 2))
SPARSE_REGIONS = LabelSet({"background": 0, "whole": (1, 2), "core": (2,), "ignore": 3}, (1, 2))


def written_out(
    logits: np.ndarray, target: np.ndarray, *, batch_dice: bool, regions: bool, valid: np.ndarray | None
) -> float:
    """Dice and (binary) cross-entropy in float64, as the contract words them."""
    x, axes = logits.astype(np.float64), tuple(range(2, logits.ndim))
    weight = np.ones((x.shape[0], 1, *x.shape[2:])) if valid is None else valid.astype(np.float64)
    if regions:
        p, t = 1 / (1 + np.exp(-x)), target.astype(np.float64)
        each = -(t * np.log(p) + (1 - t) * np.log(1 - p))
        entropy = each.mean() if valid is None else (each * weight).sum() / weight.sum()
    else:
        p = np.exp(x - x.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        t = (target == np.arange(x.shape[1]).reshape(1, -1, *(1,) * len(axes))).astype(np.float64)
        entropy = (-(t * np.log(p)).sum(1, keepdims=True) * weight).sum() / weight.sum()
        p, t = p[:, 1:], t[:, 1:]
    axes = (0, *axes) if batch_dice else axes
    overlap, predicted, true = ((a * weight).sum(axes) for a in (p * t, p, t))
    return entropy - ((2 * overlap + 1e-5) / (predicted + true + 1e-5)).mean()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)),
    ),
    batch=st.integers(1, 3),
    batch_dice=st.booleans(),
    regions=st.booleans(),
    masked=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_dice_ce_is_the_formula(shape, batch, batch_dice, regions, masked, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (batch, 3, *shape)).astype(np.float32)
    valid = rng.random((batch, 1, *shape)) < 0.7 if masked else None
    if valid is not None:
        valid.flat[0] = True
    labelled = rng.integers(0, 3, (batch, 1, *shape))
    target = (rng.random(logits.shape) < 0.4).astype(np.float32) if regions else labelled
    found = DiceCrossEntropy(batch_dice=batch_dice, regions=regions)(
        torch.from_numpy(logits), torch.from_numpy(target), None if valid is None else torch.from_numpy(valid)
    )
    expected = written_out(logits, target, batch_dice=batch_dice, regions=regions, valid=valid)
    assert found.item() == pytest.approx(expected, abs=2e-5)


def test_gradient_is_that_of_the_formula():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (2, 1, 3, 4, 2))
    mask = torch.rand(2, 1, 3, 4, 2) < 0.6
    assert torch.autograd.gradcheck(lambda x: DiceCrossEntropy()(x, target, mask), (logits,))
    regions = (torch.rand(2, 3, 3, 4, 2) < 0.5).double()
    assert torch.autograd.gradcheck(lambda x: DiceCrossEntropy(regions=True)(x, regions, mask), (logits,))


def test_dice_of_many_voxels_keeps_its_digits():
    """A single float32 accumulator would be off in the third digit here."""
    logits = torch.zeros(1, 2, 160, 160, 160)
    target = torch.ones(1, 1, 160, 160, 160, dtype=torch.int64)
    value = DiceCrossEntropy(weight_ce=0)(logits, target).item()
    assert value == pytest.approx(-2 * 0.5 / 1.5, abs=1e-6)


def test_nothing_annotated_is_no_error():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    for regions in (False, True):
        target = torch.zeros(1, 3, 4, 4) if regions else torch.zeros(1, 1, 4, 4, dtype=torch.int64)
        value = DiceCrossEntropy(regions=regions)(logits, target, torch.zeros(1, 1, 4, 4, dtype=torch.bool))
        value.backward()
        assert value.item() == -1.0
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("resolutions", "expected"),
    [(1, [1.0]), (2, [1.0, 0.0]), (3, [2 / 3, 1 / 3, 0.0]), (5, [8 / 15, 4 / 15, 2 / 15, 1 / 15, 0.0])],
)
def test_scale_weights(resolutions, expected):
    assert scale_weights(resolutions) == pytest.approx(expected)


def test_nnunets_two_stage_network_would_be_nan_and_ours_is_not():
    logits = torch.randn(1, 3, 8, 8)
    target = torch.randint(0, 3, (1, 1, 8, 8), dtype=torch.int16)
    weights = np.array([1.0])
    weights[-1] = 0  # nnunetv2's rule
    with np.errstate(invalid="ignore"):
        assert np.isnan(weights / weights.sum()).all()
    assert torch.isfinite(SupervisedLoss(DiceCrossEntropy(), LABELS)([logits], target))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=2, max_size=3),
    seed=st.integers(0, 99),
)
def test_downsampling_is_nearest_exact(sizes, seed):
    full, small = [max(pair) for pair in sizes], [min(pair) for pair in sizes]
    target = torch.from_numpy(np.random.default_rng(seed).integers(-1, 300, (2, 1, *full)).astype(np.int16))
    expected = torch.nn.functional.interpolate(target.float(), small, mode="nearest-exact").to(torch.int16)
    assert torch.equal(downsample(target, small), expected)


def test_downsampling_by_whole_steps_copies_nothing():
    target = torch.zeros(2, 1, 8, 12, 10, dtype=torch.int16)
    assert downsample(target, (4, 6, 5)).data_ptr() != 0
    assert downsample(target, (4, 6, 5)).untyped_storage().data_ptr() == target.untyped_storage().data_ptr()


def test_regions_are_encoded_in_their_order():
    target = torch.tensor([[[[0, 1, 2]]]], dtype=torch.int16)
    assert encode_regions(target, REGIONS).tolist() == [[[[0, 1, 1]], [[0, 0, 1]]]]


class Recorder(nn.Module):
    """A loss that keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, logits, target):
        self.calls.append((logits, target))
        return logits.sum()


class MaskedRecorder(Recorder):
    def forward(self, logits, target, mask):
        self.calls.append((logits, target, mask))
        return logits.sum()


def test_losses_get_float32_and_their_targets():
    output = [torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16), torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 2)]
    target = torch.randint(0, 3, (2, 1, 8, 8), dtype=torch.int16)
    recorder = Recorder()
    SupervisedLoss(recorder, LABELS)(output, target)
    assert [tuple(logits.shape[2:]) for logits, _ in recorder.calls] == [(8, 8), (4, 4)]  # the lowest weighs nothing
    assert {logits.dtype for logits, _ in recorder.calls} == {torch.float32}
    assert {given.dtype for _, given in recorder.calls} == {torch.int64}
    recorder = Recorder()
    SupervisedLoss(recorder, REGIONS, deep_supervision=False)([o[:, :2] for o in output], target)
    ((_, regions),) = recorder.calls
    assert regions.shape == (2, 2, 8, 8)
    assert regions.dtype == torch.float32


@pytest.mark.parametrize("labels", [SPARSE, SPARSE_REGIONS])
def test_ignored_voxels_are_masked_or_certain_background(labels):
    target = torch.tensor([[[[0, 1, 2, 3]]]], dtype=torch.int16)
    masked = MaskedRecorder()
    output = torch.randn(1, labels.output_channels, 1, 4, requires_grad=True)
    SupervisedLoss(masked, labels)(output, target)
    (_, wanted, mask) = masked.calls[0]
    assert mask.tolist() == [[[[True, True, True, False]]]]
    assert wanted[0, :, 0, 3].tolist() == [0] * wanted.shape[1]

    plain = Recorder()
    SupervisedLoss(plain, labels)(output, target).backward()
    given, wanted = plain.calls[0]
    assert output.grad[0, :, 0, 3].tolist() == [0.0] * labels.output_channels
    assert (output.grad[..., :3] != 0).all()
    ignored = given[0, :, 0, 3]
    probabilities = torch.sigmoid(ignored) if labels.has_regions else torch.softmax(ignored, 0)
    background = torch.zeros(labels.output_channels)
    background[0] = 0.0 if labels.has_regions else 1.0
    assert torch.allclose(probabilities, background, atol=1e-12)


def test_a_loss_without_mask_learns_nothing_from_ignored_voxels():
    """What stands in ignored voxels changes neither value nor gradient elsewhere."""
    torch.manual_seed(1)
    target = torch.randint(0, 4, (1, 1, 6, 6), dtype=torch.int16)
    first, second = torch.randn(1, 3, 6, 6), torch.randn(1, 3, 6, 6)
    second = torch.where(target == 3, second, first)
    cross_entropy = SupervisedLoss(lambda logits, target: nn.functional.cross_entropy(logits, target[:, 0]), SPARSE)
    values = [cross_entropy(x, target).item() for x in (first, second)]
    assert values[0] == values[1]


@pytest.mark.parametrize(("returned", "found"), [(1.5, "float"), (torch.zeros(3), r"a tensor of shape \(3,\)")])
def test_a_loss_that_returns_no_scalar_is_named(returned, found):
    loss = SupervisedLoss(lambda logits, target: returned, LABELS, name="mine")
    with pytest.raises(PluginError, match=f"loss 'mine' returned {found}; expected a scalar tensor"):
        loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.int16))


@pytest.mark.parametrize("labels", [LABELS, SPARSE, REGIONS, SPARSE_REGIONS])
def test_overlap_counts(labels):
    rng = np.random.default_rng(3)
    target = rng.integers(0, 4 if labels.ignore_label else 3, (2, 1, 5, 6, 4)).astype(np.int16)
    logits = rng.normal(size=(2, labels.output_channels, 5, 6, 4)).astype(np.float32)
    counts = count_overlap(torch.from_numpy(logits), torch.from_numpy(target), labels)
    valid = target[:, 0] != 3
    for i, members in enumerate([(1, 2), (2,)] if labels.has_regions else [(1,), (2,)]):
        true = np.isin(target[:, 0], members)
        predicted = logits[:, i] > 0 if labels.has_regions else logits.argmax(1) == members[0]
        expected = [(predicted & true & valid), (predicted & ~true & valid), (~predicted & true & valid)]
        assert counts[:, i].tolist() == [int(e.sum()) for e in expected]


def test_a_loss_that_fails_is_named_with_what_it_was_given():
    def broken(logits, target):
        return nn.functional.cross_entropy(logits, target[:, 0])  # takes no float targets of this shape

    loss = SupervisedLoss(broken, REGIONS, name="mine:broken", deep_supervision=False)
    with pytest.raises(PluginError) as told:
        loss(torch.zeros(2, 2, 4, 4), torch.zeros(2, 1, 4, 4))
    text = str(told.value)
    assert text.startswith("loss 'mine:broken' failed: ")
    assert (
        "given logits float32 (2, 2, 4, 4), target float32 (2, 2, 4, 4); the target holds each of the regions" in text
    )
    assert isinstance(told.value.__cause__, RuntimeError)
    hungry = SupervisedLoss(_out_of_memory, LABELS, name="hungry")
    with pytest.raises(torch.OutOfMemoryError):  # no fault of the loss
        hungry(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))


def _out_of_memory(logits, target):
    raise torch.OutOfMemoryError
