"""How fast training iterations are, with and without the loading of data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segplug.model import EpochReport
from segplug.protocols import Batch, BatchRequest
from segplug.protocols.trainer import Checkpoint as Which
from segplug.runtime.compute_settings import training_compute
from segplug.runtime.fold_work import FoldWork, find_work
from segplug.runtime.network import build_network, count_input_channels
from segplug.runtime.project import Project
from segplug.runtime.randomness import generator, torch_seed
from segplug.runtime.training_task import FoldTraining
from segplug.runtime.workspace import Workspace
from segplug.stages.bench import SECONDS, BenchResult

if TYPE_CHECKING:
    import torch

STAGE = "bench train"
FOLD = 0


def bench_training(
    project: Project,
    dataset: str | int | Path,
    configuration: str,
    *,
    repetitions: int = 5,
    iterations: int = 10,
    data_loading: bool = True,
    plans_name: str | None = None,
    trainer: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
) -> BenchResult:
    """Train for some iterations on fold 0, again and again, and tell how long they took.

    Nothing is validated, and no checkpoint, log or plot is written; the model folder is not touched. A first
    repetition, which starts loaders and picks kernels, is not counted. nnU-Net's counterparts, on a GPU alone, are
    nnUNetTrainerBenchmark_5epochs (250 iterations) and nnUNetTrainerBenchmark_5epochs_noDataLoading.

    Args:
        dataset: id, name or path of a data set that was planned and preprocessed.
        repetitions: counted ones.
        iterations: of the optimiser, in each.
        data_loading: False trains on one batch of random numbers: what the network alone takes.
        plans_name, trainer, overrides, device, precision: see `segplug.stages.train.train`.

    Returns:
        Per repetition `seconds`, `cpu_seconds` of this process (loader workers not counted), `seconds_per_iteration`,
        `samples_per_second`, and `share_waiting`, of the time in which no batch was ready.

    Raises:
        UsageError, DataError, PluginError: see `segplug.stages.train.train`.
    """
    length = {"epochs": repetitions + 1, "iterations_per_epoch": iterations, "val_iterations_per_epoch": 0}
    with tempfile.TemporaryDirectory(prefix="segplug-bench-") as name:
        workspace = project.workspace
        results = Path(name) if workspace.results is None else workspace.results
        with Project(
            Workspace(workspace.raw, workspace.preprocessed, results), project.kernel, workers=project.workers
        ) as own:
            work = find_work(
                own,
                dataset,
                configuration,
                FOLD,
                plans_name=plans_name,
                trainer=trainer,
                overrides=[*overrides, *(f"trainer.{field}={value}" for field, value in length.items())],
                epochs=None,
                device=device,
                precision=precision,
                seed=None,
                continue_=False,
            )
            loading = "" if data_loading else ", without loading of data"
            subject = f"{work.subject}{loading}"
            with own.stage(STAGE, subject, repetitions + 1), training_compute(work.device) as threads:
                task = open_task(own, work, Path(name), data_loading)
                with task:
                    work.chosen.trainer.train(task)
        settings = {
            "dataset": work.dataset.name,
            "configuration": configuration,
            "plans": work.plan.plans_name,
            "trainer": work.chosen.provided.qualified_name,
            "overrides": list(overrides),
            "data_loading": data_loading,
            "workers": project.workers if data_loading else None,
            "iterations": iterations,
            "batch_size": task.batch_size,
            "patch_size": list(work.configuration.patch_size),
            "device": str(work.device),
            "precision": work.precision,
            "threads": threads,
        }
    return BenchResult("train", settings, list(task.measured(iterations))[1:])


def open_task(project: Project, work: FoldWork, folder: Path, data_loading: bool) -> MeasuredTraining:
    """The training that `bench_training` measures.

    Args:
        folder: to work in; nothing stays there.
        data_loading: see `bench_training`.
    """
    import torch

    registry, labels = project.kernel.registry, work.dataset.labels
    channels = count_input_channels(work.configuration, work.dataset.num_channels, labels)
    deep_supervision = bool(getattr(work.chosen.trainer, "deep_supervision", True))
    torch.manual_seed(torch_seed(work.seed, "network", FOLD))
    network = build_network(registry, work.configuration, channels, labels.output_channels, deep_supervision)
    return MeasuredTraining(
        project=project,
        plan=work.plan,
        configuration=work.configuration,
        dataset=work.dataset,
        fold=FOLD,
        split=work.split,
        folder=folder,
        network=network.to(work.device),
        device=work.device,
        precision=work.precision,
        seed=work.seed,
        store=work.store,
        trainer_name="",
        previous=work.previous,
        data_loading=data_loading,
        input_channels=channels,
    )


@dataclass
class MeasuredTraining(FoldTraining):
    """A training that leaves nothing behind but how long it took.

    Args:
        data_loading: False gives the same random batch again and again.
        input_channels: of the network.
    """

    data_loading: bool = True
    input_channels: int = 1
    batch_size: int = field(default=0, init=False)
    reports: list[EpochReport] = field(default_factory=list, init=False)
    waited: list[float] = field(default_factory=list, init=False)
    batch_count: int = field(default=0, init=False)
    cpu: list[float] = field(default_factory=lambda: [time.process_time()], init=False)

    @contextmanager
    def batches(self, request: BatchRequest) -> Iterator[Iterator[Batch]]:
        """Batches, and how long each was waited for."""
        self.batch_size, self.batch_count = request.batch_size, request.iterations
        if not self.data_loading:
            yield repeat(random_batch(self, request.batch_size, self.input_channels))
            return
        with super().batches(request) as batches:
            yield self._timed(batches)

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self.waited.append(time.perf_counter() - start)
            yield batch

    def measured(self, iterations: int) -> Iterator[Mapping[str, float]]:
        """Figures of each epoch of so many iterations of the optimiser."""
        for number, report in enumerate(self.reports):
            waited = sum(self.waited[number * self.batch_count : (number + 1) * self.batch_count])
            yield {
                SECONDS: report.seconds,
                "cpu_seconds": self.cpu[number + 1] - self.cpu[number],
                "seconds_per_iteration": report.seconds / iterations,
                "samples_per_second": self.batch_size * self.batch_count / report.seconds,
                "share_waiting": waited / report.seconds,
            }

    def save(self, which: Which, state: Mapping[str, Any], *, wait: bool = False) -> None:
        """Nothing is kept."""

    def report(self, report: EpochReport) -> None:
        """Keep it, and tell the progress."""
        self.reports.append(report)
        self.cpu.append(time.process_time())
        self.project.progress(STAGE, f"repetition {report.epoch}", report.epoch + 1, report.epochs)


def random_batch(task: FoldTraining, batch_size: int, channels: int) -> Batch:
    """Normally distributed data and uniformly distributed labels on the task's device."""
    import torch

    random, shape = generator(0, "bench"), task.configuration.patch_size
    data = random.standard_normal((batch_size, channels, *shape), np.float32)
    labels = np.array(task.dataset.labels.all_labels, np.int16)
    target = labels[random.integers(len(labels), size=(batch_size, 1, *shape))]

    def here(array: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(task.device)

    return Batch(here(data), here(target))
