"""Batches for training: drawn, read, augmented and handed over in a fixed order, whatever the number of workers.

Built on batchgenerators: `PatchLoader` is one of its data loaders, and its augmenters run it, in this process or in
workers. Every sample is a pure function of (seed, fold, epoch, iteration, sample), so neither workers nor an
interruption change a batch.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from batchgenerators.dataloading.data_loader import DataLoader

from segplug.errors import DataError, PluginError, SegplugError, UsageError
from segplug.protocols import Augmentation, Batch, BatchRequest, Parameters, Store
from segplug.runtime.batch_transfer import as_batch, as_item, as_tensors
from segplug.runtime.device import sent
from segplug.runtime.loader_workers import run_loader
from segplug.runtime.opened_cases import OpenedCases
from segplug.runtime.overlap import made_ahead
from segplug.runtime.patch_sampling import LabelKey, PatchRules, place_patch, wants_foreground
from segplug.runtime.randomness import generator
from segplug.runtime.stage_predictions import StagePredictions
from segplug.runtime.torch_threads import one_torch_thread

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Phase:
    """What training or validation batches of an epoch are made of.

    Args:
        name: "train" or "val"; part of the random key.
        cases: names of the cases to draw from.
        augmentation: applied to every batch.
        iterations: batches per epoch.
    """

    name: str
    cases: tuple[str, ...]
    augmentation: Augmentation
    iterations: int


@contextmanager
def open_batches(
    store: Store,
    train: Sequence[str],
    val: Sequence[str],
    request: BatchRequest,
    *,
    augmentation: Augmentation,
    validation: Augmentation,
    patch_size: Sequence[int],
    seed: int,
    fold: int | str,
    workers: int = 0,
    device: torch.device | str = "cpu",
    annotated: LabelKey | None = None,
    apply_augmentation: bool = True,
    previous: StagePredictions | None = None,
    previous_labels: Sequence[int] = (),
    samples: Sequence[int] | None = None,
) -> Iterator[Iterator[Batch]]:
    """Start loading; yields the batches of the request in order, and ends the workers when the block is left.

    Args:
        store: preprocessed cases, read from by several processes at once.
        train, val: cases to draw from, uniformly and with replacement.
        augmentation, validation: for the two kinds of batches, made for the same patch size.
        patch_size: two or three axes.
        workers: processes that load and augment ahead, each with one thread; 0 does it between iterations.
        device: where the batches go.
        annotated: with an ignore label, key of the locations of annotated voxels (`patch_sampling.annotated_key`).
        apply_augmentation: True augments where the data is read. False does it on `device`, as a GPU wants it.
        previous: in a cascade, the predictions of the stage before; each of `previous_labels` becomes a channel of the
            data, behind the image's, once the batch is augmented.
        samples: which samples of each batch to make, where other processes make the others; None for all.

    Raises:
        UsageError: the request is for no batches at all.
        DataError: there is no case to draw from, or one cannot be read.
        SegplugError: a worker died.
    """
    if request.iterations + request.val_iterations < 1 or request.batch_size < 1:
        raise UsageError("a training needs at least one iteration per epoch and one sample per batch")
    phases = (
        Phase("train", tuple(train), augmentation, request.iterations),
        Phase("val", tuple(val), validation, request.val_iterations),
    )
    for phase in phases:
        if phase.iterations and not phase.cases:
            raise DataError(f"fold {fold}: there are no {phase.name} cases. See splits_final.json")
    loader = PatchLoader(
        store,
        phases,
        request,
        tuple(patch_size),
        seed,
        fold,
        annotated,
        apply_augmentation,
        max(1, workers),
        previous,
        range(request.batch_size) if samples is None else samples,
    )
    with (
        run_loader(loader, workers, loader.batch_bytes()) as items,
        closing(_batches(items, phases, device, previous_labels)) as batches,
    ):
        yield batches


def _batches(
    items: Iterator[dict[str, Any]], phases: Sequence[Phase], device: torch.device | str, labels: Sequence[int]
) -> Generator[Batch, None, None]:
    import torch

    device = torch.device(device)
    augmentations = {phase.name: phase.augmentation for phase in phases}
    prepare = partial(as_tensors, device=device)
    # beside another device this process has time for the next batch
    ready = (prepare(item) for item in items) if device.type == "cpu" else made_ahead(prepare, items)
    with closing(ready):
        for item in ready:
            batch = as_batch(item, device)
            if item["parameters"] is not None:
                with one_torch_thread(), torch.no_grad():
                    batch = augmentations[item["phase"]](batch, item["parameters"])
            yield _with_previous(batch, labels) if labels else batch


def _with_previous(batch: Batch, labels: Sequence[int]) -> Batch:
    """The batch with a channel behind the image's for each label that the previous stage predicted."""
    import torch

    if batch.previous is None:
        raise PluginError("the augmentation left out `previous`, which the network of a cascade needs")
    chosen = sent(torch.tensor(labels, dtype=batch.previous.dtype), batch.data.device)
    one_hot = batch.previous == chosen.view(1, -1, *[1] * (batch.data.ndim - 2))
    return replace(batch, data=torch.cat((batch.data, one_hot.to(batch.data.dtype)), 1), previous=None)


class PatchLoader(DataLoader):  # type: ignore[misc]
    """batchgenerators' data loader interface over a store: dicts with NumPy arrays, in the order of the request.

    With several workers, worker k makes batches k, k + workers, ...; batchgenerators takes them in turn.
    """

    def __init__(
        self,
        store: Store,
        phases: Sequence[Phase],
        request: BatchRequest,
        patch_size: tuple[int, ...],
        seed: int,
        fold: int | str,
        annotated: LabelKey | None,
        apply_augmentation: bool,
        workers: int,
        previous: StagePredictions | None,
        samples: Sequence[int],
    ) -> None:
        super().__init__(store, len(samples), workers, infinite=True)
        self._samples = tuple(samples)
        self._previous = previous
        self._phases = tuple(phases)
        self._request = request
        self._seed, self._fold = seed, fold
        self._apply = apply_augmentation
        self._flat = len(patch_size) == 2
        self._rules = {
            phase.name: PatchRules(_three(phase.augmentation.source_size()), _three(patch_size), annotated)
            for phase in self._phases
        }
        self._opened = OpenedCases(store, previous)
        self._next = 0

    def batch_bytes(self) -> int:
        """Most bytes that a batch of regions takes; an augmented one is smaller unless it gains channels."""
        channels = self._opened[next(name for phase in self._phases for name in phase.cases)].channels
        largest = max(math.prod(rules.source_size) for rules in self._rules.values())
        return len(self._samples) * largest * (4 * channels + 2 + 2)

    def set_thread_id(self, thread_id: int) -> None:
        """Called by batchgenerators in each worker: begin at its first batch."""
        super().set_thread_id(thread_id)
        self._next = thread_id

    def generate_train_batch(self) -> dict[str, Any]:
        """The next batch of this worker; an error becomes `{"error": ...}`, to be raised where the batch is wanted."""
        index = self._next
        self._next += self.number_of_threads_in_multithreaded
        per_epoch = sum(phase.iterations for phase in self._phases)
        epoch, iteration = divmod(index, per_epoch)
        epoch += self._request.first_epoch
        if epoch >= self._request.epochs:
            raise StopIteration
        train, val = self._phases
        phase = train if iteration < train.iterations else val
        try:
            return self._load(phase, epoch, iteration if phase is train else iteration - train.iterations)
        except SegplugError as error:
            return {"error": error}
        except Exception as error:
            where = f"{phase.name} batch {iteration} of epoch {epoch}"
            text = f"{where} cannot be made: {type(error).__name__}: {error}\n{traceback.format_exc()}"
            return {"error": RuntimeError(text)}

    def _load(self, phase: Phase, epoch: int, iteration: int) -> dict[str, Any]:
        import torch

        rules, augmentation = self._rules[phase.name], phase.augmentation
        names, starts, parameters, needed = [], [], [], []
        # all samples are drawn, wherever they are made: the region that is read is of one size for the whole batch, and
        # interpolation rounds by it
        for sample in range(self._request.batch_size):
            random = generator(self._seed, phase.name, self._fold, epoch, iteration, sample)
            name = phase.cases[random.integers(len(phase.cases))]
            case = self._opened[name]
            foreground = wants_foreground(
                sample,
                self._request.batch_size,
                self._request.oversample_foreground,
                self._request.probabilistic_oversampling,
                random,
            )
            starts.append(place_patch(case.shape, case.locations, rules, foreground, random))
            parameters.append(augmentation.draw(random))
            needed.append(_three(augmentation.needed_size(parameters[-1])))
            names.append(name)
        size = tuple(max(axis) for axis in zip(*needed, strict=True))
        names, starts, parameters = self._own(names), self._own(starts), self._own(parameters)
        needed = self._own(needed)
        channels = self._opened[names[0]].channels
        data = np.zeros((self.batch_size, channels, *size), np.float32)
        target = np.full((self.batch_size, 1, *size), -1, np.int16)
        previous = None if self._previous is None else np.full_like(target, -1)
        for place, name in enumerate(names):
            start = tuple(
                first + source // 2 - need // 2
                for first, source, need in zip(starts[place], rules.source_size, needed[place], strict=True)
            )
            room = tuple(
                slice(whole // 2 - need // 2, whole // 2 - need // 2 + need)
                for whole, need in zip(size, needed[place], strict=True)
            )
            box: tuple[Any, ...] = (place, slice(None), *room)
            self._opened.read(name, start, data[box], target[box], None if previous is None else previous[box])
        if self._flat:
            data, target = data[:, :, 0], target[:, :, 0]
            previous = None if previous is None else previous[:, :, 0]
        earlier = None if previous is None else torch.from_numpy(previous)
        batch = Batch(torch.from_numpy(data), torch.from_numpy(target), tuple(names), earlier)
        return self._finish(phase, batch, parameters)

    def _own(self, of_samples: list[T]) -> list[T]:
        return [of_samples[sample] for sample in self._samples]

    def _finish(self, phase: Phase, batch: Batch, parameters: list[Parameters]) -> dict[str, Any]:
        import torch

        if not self._apply:
            return {**as_item(batch), "phase": phase.name, "parameters": parameters}
        with one_torch_thread(), torch.no_grad():
            batch = phase.augmentation(batch, parameters)
        return {**as_item(batch), "phase": phase.name, "parameters": None}


def _three(size: Sequence[int]) -> tuple[int, ...]:
    """A 2D size as one of three axes."""
    return (1,) * (3 - len(size)) + tuple(int(extent) for extent in size)
