"""Within an epoch nothing waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from segplug.model import ComponentRef, LabelSet
from segplug.protocols import AugmentationContext, Batch, Parameters
from segplug.runtime import training_targets
from segplug.runtime.deep_supervision import SupervisedLoss
from segplug.runtime.randomness import generator
from segplug.runtime.training_targets import count_overlap
from segplug_builtin.augmentations.local import median, median_of_cubes
from segplug_builtin.augmentations.nnunet import NNUNetAugmentation
from segplug_builtin.augmentations.stronger import StrongerAugmentation
from segplug_builtin.losses import DiceCrossEntropy
from segplug_builtin.optimizers import adam, adamw, adan, sgd
from segplug_builtin.schedules import poly
from segplug_builtin.trainers.loop import TrainingLoop
from segplug_builtin.trainers.nnunet import NNUNetTrainer

LABELS = LabelSet({"background": 0, "a": 1, "b": 2})
SPARSE = LabelSet({"background": 0, "a": 1, "b": 2, "ignore": 3})
REGIONS = LabelSet({"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))


def test_the_guard_sees(forbid_waiting: Any) -> None:
    values = torch.zeros(3, device="meta")
    for wait in (
        lambda: float(torch.zeros(1)),
        lambda: torch.zeros(3).nonzero(),
        lambda: torch.zeros(3)[torch.zeros(3) > 0],
        lambda: torch.bincount(torch.zeros(3, dtype=torch.int64)),
    ):
        with forbid_waiting("cpu"), pytest.raises(AssertionError, match="waits"):
            wait()
    with forbid_waiting(), pytest.raises(AssertionError, match="to the device waits"):
        torch.zeros(3).to("meta")
    with forbid_waiting(), pytest.raises(AssertionError, match="to the device waits"):
        values.copy_(torch.zeros(3))
    with forbid_waiting() as mode:
        torch.zeros(3).to("meta", non_blocking=True).mul_(2)
    assert mode.sent == 1


def make_batch(augmentation: Any, parameters: Sequence[Parameters], cascade: bool) -> Batch:
    size = [max(axis) for axis in zip(*map(augmentation.needed_size, parameters), strict=True)]
    random = np.random.default_rng(0)
    data = random.normal(2, 3, size=(len(parameters), 2, *size)).astype(np.float32)
    maps = torch.from_numpy(random.integers(-1, 4, size=(2, len(parameters), 1, *size)).astype(np.int16))
    return Batch(torch.from_numpy(data), maps[0], previous=maps[1] if cascade else None)


@pytest.mark.parametrize("kind", [NNUNetAugmentation, StrongerAugmentation])
@pytest.mark.parametrize("patch", [(14, 16, 18), (4, 18, 18), (20, 16)])
def test_augmentation(kind: Any, patch: tuple[int, ...], device: torch.device, forbid_waiting: Any) -> None:
    augmentation = kind(AugmentationContext(patch, 2, (True, False)))
    drawn = [augmentation.draw(generator(3, sample)) for sample in range(16)]
    if device.type == "meta":  # it has no random numbers
        drawn = [{name: value for name, value in of_sample.items() if name != "noise"} for of_sample in drawn]
    batch = make_batch(augmentation, drawn, cascade=False)
    here = augmentation(batch, drawn)
    there = Batch(batch.data.to(device), batch.target.to(device))
    with forbid_waiting(device.type) as mode:
        done = augmentation(there, drawn)
    assert mode.sent > 3
    assert (done.data.shape, done.target.shape) == (here.data.shape, here.target.shape)
    assert (done.data.dtype, done.target.dtype) == (torch.float32, torch.int16)
    assert done.data.device.type == device.type


def test_operators_of_a_cascade(forbid_waiting: Any) -> None:
    augmentation = NNUNetAugmentation(AugmentationContext((10, 12, 14), 2, labels=(1, 2, 3)))
    drawn = [augmentation.draw(generator(1, sample)) for sample in range(12)]
    kept = [{n: v for n, v in of_sample.items() if n not in ("noise", "drops")} for of_sample in drawn]
    assert sum("operators" in of_sample for of_sample in kept) > 1
    batch = make_batch(augmentation, kept, cascade=True)
    there = Batch(batch.data.to("meta"), batch.target.to("meta"), (), batch.previous.to("meta"))
    with forbid_waiting():
        done = augmentation(there, kept)
    assert done.previous.shape == (12, 1, 10, 12, 14)


@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("shape", [(9, 8, 10), (12, 9), (3, 11, 9)])
def test_median_of_cubes_is_scipys(shape: tuple[int, ...], size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.from_numpy(np.random.default_rng(size).normal(size=shape).astype(np.float32))
    expected = median(image[None], np.array([size]))[0]
    assert torch.equal(median_of_cubes(image, size), expected)
    monkeypatch.setattr("segplug_builtin.augmentations.local.VALUES_AT_ONCE", 1000)  # a few planes at a time
    assert torch.equal(median_of_cubes(image, size), expected)


@pytest.mark.parametrize("labels", [LABELS, SPARSE, REGIONS], ids=["labels", "sparse", "regions"])
def test_counting_of_true_and_false(labels: LabelSet, forbid_waiting: Any) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(3, labels.output_channels, 6, 7, 5, generator=random)
    target = torch.randint(0, 4 if labels is SPARSE else 3, (3, 1, 6, 7, 5), generator=random).to(torch.int16)
    expected = count_overlap(logits, target, labels)
    with forbid_waiting():
        there = count_overlap(logits.to("meta", non_blocking=True), target.to("meta", non_blocking=True), labels)
    assert (there.shape, there.dtype) == (expected.shape, expected.dtype)
    if not labels.has_regions:  # what a device that is not waited for computes
        valid = training_targets.valid_voxels(target, labels)
        counted = training_targets._count_each(
            logits.argmax(1), target[:, 0], None if valid is None else valid[:, 0], labels.output_channels
        )
        assert torch.equal(counted, expected)


class Task:
    """What the loop asks of a task within an epoch, on a device."""

    fold, seed, rank = 0, 3, 0
    folder = Path("fold_0")
    configuration = SimpleNamespace(batch_size=2)

    def __init__(self, device: torch.device, labels: LabelSet, precision: str = "fp32") -> None:
        self.device, self.precision = device, precision
        self.dataset = SimpleNamespace(labels=labels)
        self.labels = labels
        norm_and_more = nn.Sequential(nn.InstanceNorm3d(4, affine=True), nn.LeakyReLU(), nn.Dropout3d(0.1))
        self.network = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), norm_and_more, nn.Conv3d(4, labels.output_channels, 1)
        ).to(device)

    def build(self, kind: str, ref: ComponentRef) -> Any:
        if kind == "optimizers" and self.device.type == "meta":  # the fused one is for devices that compute
            return lambda groups, lr, weight_decay: torch.optim.SGD(groups, lr, 0.99, foreach=True)
        return {"sgd": sgd, "poly": poly}[ref.name]

    def loss(self, ref: ComponentRef, deep_supervision: bool) -> Any:
        classes, regions = self.labels.output_channels, self.labels.has_regions
        return SupervisedLoss(DiceCrossEntropy(True, regions, classes).to(self.device), self.labels)

    def saved_state(self) -> None:
        return None

    def log(self, text: str) -> None:
        """Nobody reads it."""


@pytest.mark.parametrize("labels", [LABELS, SPARSE, REGIONS], ids=["labels", "sparse", "regions"])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "weight_averaging": 0.9, "gradient_clip": None}])
def test_an_epochs_steps(
    labels: LabelSet,
    options: dict[str, Any],
    device: torch.device,
    forbid_waiting: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if device.type == "meta":
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for it
    task = Task(device, labels, "bf16" if device.type == "cuda" else "fp32")
    loop = TrainingLoop(NNUNetTrainer(**options), task)
    data, target = torch.randn(2, 1, 8, 8, 8), torch.randint(0, 3, (2, 1, 8, 8, 8), dtype=torch.int16)
    batch = Batch(data.to(device), target.to(device))
    for warm in (True, False):
        with nullcontext() if warm else forbid_waiting(device.type):
            loss = loop._train_step([batch] * loop._settings.accumulate)
            if loop._average is not None:
                loop._average.update(0)
            val_loss, overlap = loop._validation_step(batch)
    assert loss.shape == val_loss.shape == ()
    assert overlap.shape == (3, 2)


@pytest.mark.parametrize("make", [sgd, adam, adamw, adan])
def test_a_step_of_an_optimiser(make: Any, forbid_waiting: Any) -> None:
    weights = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4))]
    optimizer = make(weights, lr=1e-2, weight_decay=1e-3)
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        before = [weight.detach().clone() for weight in weights]
        with forbid_waiting("cpu"):
            optimizer.step()
    assert all(not torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
