"""Batches are the same whatever loads them, hold what they should, and nothing outlives or hangs a training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from segplug.errors import DataError, SegplugError
from segplug.model import ComponentRef
from segplug.protocols import Augmentation, AugmentationContext, Batch, BatchRequest, Parameters
from segplug.runtime.batch_loader import open_batches
from segplug.runtime.processes import Processes
from segplug_builtin.augmentations.batchgenerators_chain import BatchgeneratorsAugmentation
from segplug_builtin.augmentations.nnunet import NNUNetAugmentation
from segplug_builtin.augmentations.none import NoAugmentation
from segplug_builtin.augmentations.stronger import StrongerAugmentation

Make = Callable[..., Any]


class Checkered:
    """Source regions larger than patches, and needs that differ from sample to sample; keeps the region."""

    def __init__(self, context: AugmentationContext) -> None:
        self._patch = context.patch_size

    def source_size(self) -> tuple[int, ...]:
        return tuple(size + 7 for size in self._patch)

    def draw(self, random: np.random.Generator) -> Parameters:
        return {"more": int(random.integers(8))}

    def needed_size(self, parameters: Parameters) -> tuple[int, ...]:
        return tuple(size + parameters["more"] for size in self._patch)

    def __call__(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        return Batch(batch.data, batch.target, batch.cases, extra=batch.extra)


class Failing(NoAugmentation):
    def __call__(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        raise ZeroDivisionError("no such luck")


class Swelling(NoAugmentation):
    """Makes batches far larger than the regions they came from."""

    def __call__(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        extra = {"means": batch.data.mean((2, 3, 4)), "note": "large"}
        return Batch(batch.data.repeat(1, 40, 1, 1, 1), batch.target, batch.cases, batch.target * 2, extra)


@contextmanager
def batches(
    store: Any,
    kind: Callable[[AugmentationContext], Augmentation] = NNUNetAugmentation,
    *,
    workers: int = 0,
    patch: tuple[int, ...] = (12, 16, 14),
    batch_size: int = 3,
    epochs: int = 2,
    iterations: int = 3,
    val_iterations: int = 2,
    first_epoch: int = 0,
    **options: Any,
) -> Iterator[Iterator[Batch]]:
    channels = store.open(store.cases()[0]).channels
    context = AugmentationContext(patch, channels, (True, False)[:channels])
    checking = AugmentationContext(patch, channels, (True, False)[:channels], validation=True)
    request = BatchRequest(ComponentRef("any"), batch_size, epochs, iterations, val_iterations, first_epoch)
    names = store.cases()
    with open_batches(
        store,
        names[:-1],
        names[-1:],
        request,
        augmentation=kind(context),
        validation=NoAugmentation(checking) if kind is Checkered else kind(checking),
        patch_size=patch,
        seed=5,
        fold=0,
        workers=workers,
        **options,
    ) as opened:
        yield opened


def all_of(store: Any, *args: Any, **options: Any) -> list[Batch]:
    with batches(store, *args, **options) as opened:
        return list(opened)


def same(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.data, b.data) and torch.equal(a.target, b.target) and a.cases == b.cases
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("kind", [NNUNetAugmentation, BatchgeneratorsAugmentation, NoAugmentation])
@pytest.mark.parametrize("patch", [(12, 16, 14), (16, 14), (3, 16, 14)])
def test_workers_change_nothing(make_store: Make, kind: Any, patch: tuple[int, ...]) -> None:
    store = make_store()
    alone = all_of(store, kind, patch=patch)
    assert len(alone) == 2 * (3 + 2)
    assert alone[0].data.shape == (3, 2, *patch)
    assert alone[0].target.shape == (3, 1, *patch)
    assert (alone[0].data.dtype, alone[0].target.dtype) == (torch.float32, torch.int16)
    assert min(int(batch.target.min()) for batch in alone) == 0
    for workers in (1, 2, 3):
        assert same(all_of(store, kind, patch=patch, workers=workers), alone)


def test_threads_change_nothing(make_store: Make) -> None:
    before = torch.get_num_threads()
    store = make_store(2, (90, 90, 90), 1)  # large enough for torch to use threads where it may
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            options = {"patch": (64, 64, 64), "batch_size": 2, "epochs": 1, "iterations": 6, "val_iterations": 0}
            results.append(all_of(store, **options))
            results.append(all_of(store, apply_augmentation=False, **options))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(same(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    "kind", [NNUNetAugmentation, StrongerAugmentation, BatchgeneratorsAugmentation, NoAugmentation]
)
@pytest.mark.parametrize("patch", [(12, 16, 14), (16, 14)])
def test_processes_have_the_samples_that_one_has(make_store: Make, kind: Any, patch: tuple[int, ...]) -> None:
    """Whatever else is in a batch: noise, the foreground rule and the size of the region that is read."""
    store = make_store()
    options = {"patch": patch, "batch_size": 5, "epochs": 1, "iterations": 6}
    alone = all_of(store, kind, **options)
    shares = [Processes(rank, 3).share(5) for rank in range(3)]
    assert [list(share) for share in shares] == [[0, 1], [2, 3], [4]]
    parts = [all_of(store, kind, samples=share, **options) for share in shares]
    for whole, *own in zip(alone, *parts, strict=True):
        assert torch.equal(torch.cat([part.target for part in own]), whole.target)
        torch.testing.assert_close(torch.cat([part.data for part in own]), whole.data, rtol=0, atol=0)
        assert sum((part.cases for part in own), ()) == whole.cases


def test_a_resumed_training_gets_the_batches_it_would_have_got(make_store: Make) -> None:
    store = make_store()
    whole = all_of(store, epochs=3)
    for workers in (0, 2):
        assert same(all_of(store, epochs=3, first_epoch=2, workers=workers), whole[2 * 5 :])
    assert all_of(store, epochs=3, first_epoch=3, workers=1) == []


def test_epochs_differ_and_training_comes_before_validation(make_store: Make) -> None:
    made = all_of(make_store(), epochs=2, iterations=4, val_iterations=3)
    kinds = ["val" if set(batch.cases) == {"case_4"} else "train" for batch in made]
    assert kinds == (["train"] * 4 + ["val"] * 3) * 2
    assert {name for batch in made for name in batch.cases} == {f"case_{i}" for i in range(5)}
    assert not any(same([a], [b]) for a in made for b in made if a is not b)


def test_augmenting_where_the_batch_is_used_gives_the_same(make_store: Make) -> None:
    store = make_store()
    reference = all_of(store)
    for workers in (0, 2):
        assert same(all_of(store, apply_augmentation=False, workers=workers), reference)


@pytest.mark.parametrize("patch", [(12, 16, 14), (24, 12, 40), (16, 14)])
def test_regions_are_pieces_of_the_image_with_padding_where_it_ends(make_store: Make, patch: tuple[int, ...]) -> None:
    store = make_store(4)
    for name in store.cases():  # every voxel tells where it is
        data = store.open(name).case.data
        data[0] = np.arange(1, data[0].size + 1).reshape(data[0].shape)
    padded = 0
    for batch in all_of(store, Checkered, patch=patch, val_iterations=0, iterations=8):
        for data, target, name in zip(batch.data.numpy(), batch.target.numpy(), batch.cases, strict=True):
            case = store.open(name).case
            if len(patch) == 2:
                data, target = data[:, None], target[:, None]  # noqa: PLW2901
            held = np.argwhere(data[0] > 0)
            there = np.stack(np.unravel_index(data[0][tuple(held.T)].astype(int) - 1, case.data.shape[1:]), 1)
            start = (there - held)[0]
            assert ((there - held) == start).all()
            assert np.array_equal(target[(0, *held.T)], case.target[(0, *there.T)])
            low, high = held.min(0), held.max(0) + 1
            assert len(held) == np.prod(high - low)
            rest = np.ones(data.shape[1:], bool)
            rest[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = False
            assert (data[:, rest] == 0).all()
            assert (target[:, rest] == -1).all()
            padded += rest.sum()
    assert padded


def test_samples_at_the_end_of_a_batch_hold_foreground(make_store: Make) -> None:
    made = all_of(make_store(5, (60, 60, 60), 1), NoAugmentation, patch=(4, 4, 4), iterations=30, val_iterations=0)
    last = [int(batch.target[-1].max()) > 0 for batch in made]
    others = [int(batch.target[0].max()) > 0 for batch in made]
    assert all(last)
    assert np.mean(others) < 0.5


def test_without_cases_or_with_a_missing_one(make_store: Make) -> None:
    with pytest.raises(DataError, match=r"fold 0: there are no train cases"):
        all_of(make_store(1))
    nothing = NoAugmentation(AugmentationContext((4, 4, 4), 2))
    request = BatchRequest(ComponentRef("none"), 2, 1, 1, 0)
    options: dict[str, Any] = {"augmentation": nothing, "validation": nothing, "patch_size": (4, 4, 4)}
    for workers in (0, 1):
        names = ["case_0", *["case_9"] * 50]
        with (
            pytest.raises(DataError, match="case_9: no such"),
            open_batches(make_store(), names, [], request, seed=0, fold=0, workers=workers, **options) as opened,
        ):
            list(opened)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_while_loading_is_raised_where_the_batch_is_wanted(make_store: Make, workers: int) -> None:
    with (
        pytest.raises(RuntimeError, match=r"(?s)train batch 0 of epoch 0.*ZeroDivisionError: no such luck"),
        batches(make_store(), Failing, workers=workers) as opened,
    ):
        next(opened)
    assert not own_workers()


def test_batches_that_outgrow_the_shared_memory_arrive(make_store: Make) -> None:
    store = make_store()
    here, there = all_of(store, Swelling), all_of(store, Swelling, workers=2)
    assert same(here, there)
    for first, second in zip(here, there, strict=True):
        assert second.extra["note"] == "large"
        assert torch.equal(first.extra["means"], second.extra["means"])
        assert torch.equal(second.previous, second.target * 2)


def test_a_killed_worker_is_an_error_and_never_a_hang(make_store: Make) -> None:
    for victim in (0, 1):
        start = time.monotonic()
        with batches(make_store(), workers=2, epochs=10_000) as opened:
            next(opened)
            os.kill(own_workers()[victim].pid, signal.SIGKILL)
            with pytest.raises(SegplugError, match=r"exit code -9.*--workers 0"):
                for _ in opened:
                    pass
        assert time.monotonic() - start < 20
        assert not own_workers()


def test_workers_end_when_the_training_stops_early(make_store: Make) -> None:
    with pytest.raises(KeyboardInterrupt), batches(make_store(), workers=2, epochs=10_000) as opened:  # noqa: PT012
        next(opened)
        assert len(own_workers()) == 2
        raise KeyboardInterrupt
    assert not own_workers()
    assert threading.active_count() == 1


def test_workers_ignore_ctrl_c_and_end_with_their_parent(tmp_path: Any) -> None:
    program = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from conftest import MemoryStore, make_case
        from test_batch_loader import batches
        store = MemoryStore({{f"case_{{i}}": make_case((20, 20, 20), 2, i) for i in range(3)}})
        with batches(store, workers=2, epochs=10000) as opened:
            next(opened)
            print("ready", flush=True)
            time.sleep(600)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) == 2
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert all(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    finally:
        process.kill()
        process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=15)
    assert not alive


def own_workers() -> list[psutil.Process]:
    """Loader processes of this one."""
    children = psutil.Process().children()
    return [
        child
        for child in children
        if child.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(child.cmdline())
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_for_a_device(make_store: Make, workers: int) -> None:
    """On their way to a device they are made ahead, and augmented there; order and cases stay."""
    store = make_store()
    here = all_of(store)
    before = threading.active_count()
    with batches(store, workers=workers, device="meta", apply_augmentation=False, kind=NoAugmentation) as opened:
        there = list(opened)
    assert [batch.cases for batch in there] == [batch.cases for batch in here]
    assert {batch.data.device.type for batch in there} == {"meta"}
    assert {(batch.data.shape, batch.target.shape) for batch in there} == {
        (batch.data.shape, batch.target.shape) for batch in here
    }
    with batches(store, workers=workers, device="meta", apply_augmentation=False, kind=NoAugmentation) as opened:
        next(opened)  # given up in the middle, nothing stays
    assert threading.active_count() == before
