"""The training loop against one written out, and its schedules and optimisers."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from segplug.errors import SegplugError
from segplug.model import LabelSet
from segplug.protocols import Batch
from segplug_builtin.losses import DiceCrossEntropy
from segplug_builtin.optimizers import adamw, sgd
from segplug_builtin.schedules import one_cycle, poly
from segplug_builtin.trainers.loop import TrainingLoop, moving_average, pseudo_dice
from segplug_builtin.trainers.nnunet import NNUNetTrainer
from segplug_builtin.trainers.short import short_trainer

LABELS = LabelSet({"background": 0, "a": 1, "b": 2})
COMPONENTS = {"sgd": sgd, "adamw": adamw, "poly": poly, "one_cycle": one_cycle}


class Task:
    """A training task in memory: ready batches, and a list of what was saved."""

    device = torch.device("cpu")
    fold, seed, rank = 0, 3, 0
    folder = Path("fold_0")
    dataset = SimpleNamespace(labels=LABELS)
    configuration = SimpleNamespace(batch_size=2)

    def __init__(self, precision="fp32", saved=None, poison=()):
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout(0.2), nn.Conv2d(4, 3, 1))
        self.precision = precision
        self.saved, self.poison = saved, poison
        self.reports, self.checkpoints, self.requests = [], [], []

    def build(self, kind, ref):
        return COMPONENTS[ref.name]

    def loss(self, ref, deep_supervision):
        loss = DiceCrossEntropy()
        return lambda output, target: loss(output.float(), target.long())

    @contextmanager
    def batches(self, request):
        self.requests.append(request)
        yield self._batches(request)

    def _batches(self, request):
        for epoch in range(request.first_epoch, request.epochs):
            for iteration in range(request.iterations + request.val_iterations):
                yield self.batch(epoch, iteration)

    def batch(self, epoch, iteration):
        random = torch.Generator().manual_seed(100 * epoch + iteration)
        data = torch.randn(2, 1, 8, 8, generator=random)
        if (epoch, iteration) in self.poison:
            data = data * float("inf")
        return Batch(data, torch.randint(0, 3, (2, 1, 8, 8), generator=random, dtype=torch.int16))

    def saved_state(self):
        return self.saved

    def total(self, values):
        return values

    def save(self, which, state, *, wait=False):
        content = copy.deepcopy({**state, "network": self.network.state_dict()})
        content["logging"] = {"ema_fg_dice": [report.ema_dice for report in self.reports]}
        self.checkpoints.append((which, content))

    def report(self, report):
        self.reports.append(report)

    def log(self, text):
        pass


SETTINGS = NNUNetTrainer(epochs=3, iterations_per_epoch=4, val_iterations_per_epoch=2, lr=0.3, gradient_clip=0.05)


def test_it_is_the_loop_written_out():
    task, other = Task(), Task()
    network, loss = other.network, DiceCrossEntropy()
    network[1].p = task.network[1].p = 0.0
    TrainingLoop(SETTINGS, task).run()
    optimizer = torch.optim.SGD(network.parameters(), 0.3, momentum=0.99, nesterov=True, weight_decay=3e-5)
    for epoch in range(3):
        losses = []
        for group in optimizer.param_groups:
            group["lr"] = 0.3 * (1 - epoch / 3) ** 0.9
        for iteration in range(4):
            batch = other.batch(epoch, iteration)
            optimizer.zero_grad()
            value = loss(network(batch.data), batch.target.long())
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.05)
            optimizer.step()
            losses.append(value.item())
        assert task.reports[epoch].train_loss == pytest.approx(sum(losses) / 4, abs=1e-6)
        assert task.reports[epoch].learning_rate == pytest.approx(0.3 * (1 - epoch / 3) ** 0.9)
    for found, expected in zip(task.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_validation_counts_over_all_batches():
    task = Task()
    TrainingLoop(NNUNetTrainer(epochs=1, iterations_per_epoch=1, val_iterations_per_epoch=3), task).run()
    task.network.eval()
    tp, size = torch.zeros(3), torch.zeros(3)
    for iteration in range(1, 4):
        batch = task.batch(0, iteration)
        predicted = task.network(batch.data).argmax(1)
        for label in range(3):
            p, t = predicted == label, batch.target[:, 0] == label
            tp[label] += (p & t).sum()
            size[label] += p.sum() + t.sum()
    assert task.reports[0].dice == pytest.approx((2 * tp / size)[1:].tolist())
    assert task.reports[0].mean_dice == pytest.approx((2 * tp / size)[1:].mean().item())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_continued_is_uninterrupted(precision):
    """Dropout included: torch's generator is seeded for each epoch."""
    whole = Task(precision)
    TrainingLoop(SETTINGS, whole).run()
    first = Task(precision)
    TrainingLoop(SETTINGS, first).run()
    saved = next(content for which, content in first.checkpoints if which == "latest" and content["current_epoch"] == 2)
    second = Task(precision, saved)
    second.network.load_state_dict(saved["network"])
    torch.manual_seed(99)
    TrainingLoop(SETTINGS, second).run()
    assert second.requests[0].first_epoch == 2
    assert len(second.reports) == 1
    assert second.reports[0].train_loss == whole.reports[2].train_loss
    assert second.reports[0].ema_dice == whole.reports[2].ema_dice
    for found, expected in zip(second.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_an_interrupted_end_is_made_up_for():
    first = Task()
    TrainingLoop(SETTINGS, first).run()
    saved = [content for which, content in first.checkpoints if which == "latest"][-1]
    second = Task(saved=saved)
    TrainingLoop(SETTINGS, second).run()
    assert [(which, content["current_epoch"]) for which, content in second.checkpoints] == [("final", 3)]


def test_checkpoints_in_order():
    task = Task()
    TrainingLoop(SETTINGS, task).run()
    best = -1.0
    expected = []
    for epoch, report in enumerate(task.reports, start=1):
        if report.ema_dice > best:
            best = report.ema_dice
            expected.append(("best", epoch))
        expected.append(("latest", epoch))
    expected.append(("final", 3))
    assert [(which, content["current_epoch"]) for which, content in task.checkpoints] == expected
    assert task.checkpoints[-1][1]["_best_ema"] == best


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_spoilt_epoch_is_never_saved(precision):
    task = Task(precision, poison={(1, 2)})
    with pytest.raises(SegplugError, match=r"the loss became nan in epoch 2"):
        TrainingLoop(SETTINGS, task).run()
    assert [(which, content["current_epoch"]) for which, content in task.checkpoints if which == "latest"] == [
        ("latest", 1)
    ]


def test_fp16_leaves_out_steps_that_overflow():
    task = Task("fp16", poison={(1, 2)})
    TrainingLoop(SETTINGS, task).run()
    assert all(math.isfinite(report.train_loss) for report in task.reports)
    assert all(torch.isfinite(p).all() for p in task.network.parameters())
    assert task.checkpoints[-1][1]["grad_scaler_state"]["scale"] < 65536.0


def test_short_is_the_same_loop_with_other_settings():
    task = Task()
    TrainingLoop(replace(short_trainer(), epochs=2, iterations_per_epoch=2, val_iterations_per_epoch=0), task).run()
    assert len(task.reports) == 2
    assert [which for which, _ in task.checkpoints] == ["latest", "latest", "final"]


def test_poly_is_nnunets():
    rates = [poly(1e-2, epoch=e, epochs=1000, iteration=7, iterations=250) for e in (0, 1, 500, 999)]
    assert rates == pytest.approx([1e-2, 1e-2 * 0.999**0.9, 1e-2 * 0.5**0.9, 1e-2 * 0.001**0.9])


def test_one_cycle_rises_once_and_falls_once():
    rates = [one_cycle(1.0, epoch=e, epochs=4, iteration=i, iterations=25) for e in range(4) for i in range(25)]
    peak = rates.index(max(rates))
    assert rates[0] == pytest.approx(0.04)
    assert rates[-1] == pytest.approx(1e-4)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert peak == pytest.approx(0.15 * 99, abs=1)
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in pairwise(rates[peak:]))
    assert one_cycle(1.0, epoch=0, epochs=1, iteration=0, iterations=1) == pytest.approx(0.04)  # a single step


def test_moving_average():
    assert moving_average(math.nan, 0.5) == 0.5
    assert moving_average(0.5, 1.0) == pytest.approx(0.55)
    assert moving_average(0.5, math.nan) == 0.5  # nnU-Net's stays NaN for ever
    assert math.isnan(moving_average(math.nan, math.nan))


def test_pseudo_dice_of_an_absent_class_is_undefined():
    dice = pseudo_dice(torch.tensor([[3, 0], [1, 0], [2, 0]]))
    assert dice[0] == pytest.approx(6 / 9)
    assert math.isnan(dice[1])
