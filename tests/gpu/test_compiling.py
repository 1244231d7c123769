"""A compiled training is the one that it would be without, or is none; here with compilers that do little."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from segplug.errors import SegplugError, UsageError
from segplug.model import ComponentRef, EpochReport, LabelSet
from segplug.protocols import Batch, BatchRequest
from segplug.runtime.deep_supervision import SupervisedLoss
from segplug_builtin.losses import DiceCrossEntropy
from segplug_builtin.optimizers import sgd
from segplug_builtin.schedules import poly
from segplug_builtin.trainers import compiling
from segplug_builtin.trainers.compiling import Compiler
from segplug_builtin.trainers.loop import TrainingLoop
from segplug_builtin.trainers.nnunet import NNUNetTrainer

LABELS = LabelSet({"background": 0, "a": 1, "b": 2})
SETTINGS = NNUNetTrainer(epochs=3, iterations_per_epoch=2, val_iterations_per_epoch=1, lr=0.1, compile=True)


class Network(nn.Module):
    """Two resolutions, statistics of batches, and features that are dropped."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(), nn.Dropout(dropout)
        )
        self.down = nn.Conv2d(4, 4, 2, stride=2)
        self.heads = nn.ModuleList([nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 1)])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        full = self.first(x)
        half = self.down(full)
        return [self.heads[0](full), self.heads[1](half), self.heads[2](self.down(half))]


class Task:
    """A training task in memory."""

    device = torch.device("cpu")
    fold, seed, rank = 0, 3, 0
    folder = Path("fold_0")
    dataset = SimpleNamespace(labels=LABELS)
    configuration = SimpleNamespace(batch_size=2)
    precision = "fp32"

    def __init__(self, loss: Any = None, dropout: float = 0.2, saved: dict[str, Any] | None = None) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = Network(dropout)
        self.component = DiceCrossEntropy() if loss is None else loss
        self.saved = saved
        if saved is not None:
            self.network.load_state_dict(saved["network"])
        self.reports: list[EpochReport] = []
        self.lines: list[str] = []
        self.checkpoints: dict[str, dict[str, Any]] = {}

    def build(self, kind: str, ref: ComponentRef) -> Any:
        return {"sgd": sgd, "poly": poly}[ref.name]

    def loss(self, ref: ComponentRef, deep_supervision: bool) -> SupervisedLoss:
        return SupervisedLoss(self.component, LABELS)

    @contextmanager
    def batches(self, request: BatchRequest) -> Iterator[Iterator[Batch]]:
        def made() -> Iterator[Batch]:
            for number in range(request.first_epoch * 3, request.epochs * 3):
                random = torch.Generator().manual_seed(number)
                data = torch.randn(2, 1, 8, 8, generator=random)
                yield Batch(data, torch.randint(0, 3, (2, 1, 8, 8), generator=random, dtype=torch.int16))

        yield made()

    def saved_state(self) -> dict[str, Any] | None:
        return self.saved

    def total(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def save(self, which: str, state: dict[str, Any], *, wait: bool = False) -> None:
        content = copy.deepcopy({**state, "network": self.network.state_dict()})
        content["logging"] = {"ema_fg_dice": [report.ema_dice for report in self.reports]}
        self.checkpoints[which] = content

    def report(self, report: EpochReport) -> None:
        self.reports.append(report)

    def log(self, text: str) -> None:
        self.lines.append(text)


class Backend:
    """What torch.compile calls with what it has found: leaves it as it is, and counts."""

    def __init__(self, change: Callable[[Any], Any] = lambda outputs: outputs) -> None:
        self.change = change
        self.compiled = self.calls = 0

    def __call__(self, module: torch.fx.GraphModule, inputs: Any, options: Any = None) -> Any:
        if options:
            raise RuntimeError("this device has no graphs\nand more about it")
        self.compiled += 1

        def run(*args: Any) -> Any:
            self.calls += 1
            return self.change(module.forward(*args))

        return run


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Backend]]:
    def use(*args: Any) -> Backend:
        made = Backend(*args)
        monkeypatch.setattr(compiling, "BACKEND", made)
        return made

    torch._dynamo.reset()
    yield use
    torch._dynamo.reset()


def same(first: Task, second: Task) -> bool:
    a, b = (task.checkpoints["final"] for task in (first, second))
    weights = all(torch.equal(a["network"][name], b["network"][name]) for name in a["network"])
    return weights and [r.train_loss for r in first.reports][-1] == [r.train_loss for r in second.reports][-1]


def trained(task: Task, settings: NNUNetTrainer) -> Task:
    TrainingLoop(settings, task).run()
    return task


def test_the_same_training_bit_by_bit(backend: Any) -> None:
    as_it_is = trained(Task(), replace(SETTINGS, compile=False))
    used = backend()
    compiled = trained(Task(), SETTINGS)
    # network and loss at two resolutions, in training and in validation; nothing is compiled after the first step
    assert used.compiled == 6
    assert used.calls > 3 * 3 * 3
    assert same(compiled, as_it_is)
    assert list(compiled.checkpoints["final"]["network"]) == list(as_it_is.checkpoints["final"]["network"])
    assert any("compiled, without CUDA graphs" in line for line in compiled.lines)


def test_continued_it_is_the_uninterrupted_one(backend: Any) -> None:
    backend()
    whole = trained(Task(), SETTINGS)
    begun = Task()
    loop = TrainingLoop(SETTINGS, begun)
    ended = RuntimeError("pulled the plug")

    def report(report: EpochReport) -> None:
        begun.reports.append(report)
        if len(begun.reports) == 2:
            raise ended

    begun.report = report  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="pulled the plug"):
        loop.run()
    torch._dynamo.reset()
    assert same(trained(Task(saved=begun.checkpoints["latest"]), SETTINGS), whole)


def by_hand(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A plugin's loss, which is a function, and does what cannot be compiled as a whole."""
    values = nn.functional.cross_entropy(logits, target[:, 0])
    print(f"{float(values.detach()):.3f}", end="")  # noqa: T201
    return values


def test_losses_of_plugins(backend: Any) -> None:
    class Module(nn.Module):
        def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return by_hand(logits, target)

    as_it_is = trained(Task(by_hand), replace(SETTINGS, compile=False))
    for loss in (by_hand, Module()):
        used = backend()
        torch._dynamo.reset()
        assert same(trained(Task(loss), SETTINGS), as_it_is)
        assert used.calls


def wrong(outputs: Any) -> Any:
    return type(outputs)(part * 1.5 for part in outputs)


def fails(outputs: Any) -> Any:
    raise RuntimeError("no room")


@pytest.mark.parametrize("change", [wrong, fails])
def test_what_was_asked_for_and_fails_is_an_error(backend: Any, change: Any) -> None:
    backend(change)
    with pytest.raises(SegplugError, match=r"trainer\.compile=true: .* compiling it .*(computes|no room)"):
        trained(Task(dropout=0), SETTINGS)


@pytest.mark.parametrize("change", [wrong, fails])
def test_what_is_automatic_and_fails_is_left_out_and_told(
    backend: Any, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, compile="auto", cuda_graphs=False)
    as_it_is = trained(Task(dropout=0), settings)
    monkeypatch.setattr(compiling, "AUTOMATIC", "cpu")
    monkeypatch.setattr(compiling, "LEAST_STEPS", 6)
    backend(change)
    task = Task(dropout=0)
    with pytest.warns(UserWarning, match=r"goes on without compiling it, which failed .*compile=false"):
        trained(task, settings)
    assert any("goes on without" in line for line in task.lines)
    assert same(task, as_it_is)
    assert task.network._compiled_call_impl is None


def test_without_graphs_where_there_are_none(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "AUTOMATIC", "cpu")
    used = backend()
    task = Task()
    with pytest.warns(UserWarning, match=r"without CUDA graphs of it, which failed \(.*no graphs"):
        trained(task, SETTINGS)
    assert used.compiled
    assert any("compiled, without CUDA graphs" in line for line in task.lines)


def compiler(device: str = "cpu", network: nn.Module | None = None, **settings: Any) -> Compiler:
    values: dict[str, Any] = {"compile": "auto", "graphs": "auto", "steps": 250_000, "accumulate": 1, **settings}
    return Compiler(network or nn.Conv2d(1, 1, 1), None, torch.device(device), log=str, **values)


def test_when_it_is_automatic() -> None:
    class Parallel(nn.Conv2d):
        def no_sync(self) -> None:
            """As the network of several processes."""

    assert not compiler("cpu").wanted
    assert compiler("cuda").wanted
    assert not compiler("cuda", steps=9_999).wanted
    assert not compiler("cuda", compile=False).wanted
    assert compiler("cpu", compile=True, steps=1).wanted
    assert compiler("cuda", graphs=True, steps=1).wanted
    assert not compiler("cuda", Parallel(1, 1, 1)).wanted


@pytest.mark.parametrize(
    ("device", "settings"),
    [
        ("cpu", {"graphs": True}),
        ("cuda", {"graphs": True, "compile": False}),
        ("cuda", {"graphs": True, "accumulate": 2}),
    ],
)
def test_what_is_not_to_be_had(device: str, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"trainer\.cuda_graphs=true: it needs"):
        compiler(device, **settings)
    network = nn.Conv2d(1, 1, 1)
    network.no_sync = None.__init__  # type: ignore[assignment]
    with pytest.raises(UsageError, match="several processes"):
        compiler("cuda", network, compile=True)


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_on_a_gpu(graphs: bool) -> None:
    """With the compiler that is used: the same scores, and the same bits again where that is asked for."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch._dynamo.reset()

    class OnGPU(Task):
        device = torch.device("cuda")

        def __init__(self, **options: Any) -> None:
            super().__init__(dropout=0, **options)
            self.network = self.network.to(self.device)
            self.component = self.component.to(self.device)

        @contextmanager
        def batches(self, request: BatchRequest) -> Iterator[Iterator[Batch]]:
            with super().batches(request) as made:
                yield (Batch(batch.data.cuda(), batch.target.cuda()) for batch in made)

    settings = replace(SETTINGS, cuda_graphs=graphs, deterministic=True)
    as_it_is = trained(OnGPU(), replace(settings, compile=False, cuda_graphs=False))
    compiled, again = trained(OnGPU(), settings), trained(OnGPU(), settings)
    assert same(compiled, again)
    assert compiled.reports[-1].train_loss == pytest.approx(as_it_is.reports[-1].train_loss, rel=1e-3)
