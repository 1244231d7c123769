"""Runs a data loader of batchgenerators in this process, or in workers that never outlive it and never hang it.

batchgenerators' own augmenter for several processes sends whole batches through pipes, waits on locks that a worker
may hold when it is killed, and leaves its workers behind when the parent is. The one here has its interface and runs
its producer, but batches stand in shared memory and only their places go through the (then atomic) pipes; nothing is
waited for without a look at the worker.

Workers are forks of this process: they share its open store and its imports, and start at once, where a fresh process
imports torch for seconds. A fork has none of the parent's other threads, but what locks these held at that moment stays
locked. torch's own threads are no trouble as long as the worker computes with one thread (it does); for the rest, a
worker says when it has begun, and one that does not is replaced. Where processes cannot be forked safely (macOS, whose
system libraries do not allow it, and Windows) batches are made in this process. See docs/decisions.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any

import numpy as np
from batchgenerators.dataloading.data_loader import SlimDataLoaderBase
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter, producer
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter

from segplug.errors import SegplugError

_POLL = 0.02  # seconds between looks at a worker
_AHEAD = 2  # batches that each worker keeps ready
_SLOTS = _AHEAD + 2  # and one that it makes, and one that is being taken
_ALIGNED = 64  # bytes
_BEGIN_WITHIN = 15.0  # seconds for a fork to begin: it takes milliseconds, but the machine may be busy
_ATTEMPTS = 4  # forks of one worker, each given twice the time of the one before

CAN_FORK = sys.platform not in ("win32", "cygwin", "darwin")


@contextmanager
def run_loader(loader: SlimDataLoaderBase, workers: int, batch_bytes: int) -> Iterator[Iterator[dict[str, Any]]]:
    """Yield the loader's items (dicts); an item `{"error": exception}` is raised. Workers end with the block.

    Args:
        loader: its `number_of_threads_in_multithreaded` is `workers`, or 1.
        workers: processes; 0 makes the items here, when they are asked for, as does a system that cannot fork.
        batch_bytes: of the arrays of an item, at most; larger items arrive all the same, but slowly.

    Raises:
        SegplugError: a worker died.
    """
    if workers and not CAN_FORK:
        warnings.warn(
            "this system cannot fork processes safely: batches are made in the training's own process, between its "
            "iterations (as with --workers 0)",
            stacklevel=3,
        )
        workers, loader.number_of_threads_in_multithreaded = 0, 1
    if workers == 0:
        yield _raising(SingleThreadedAugmenter(loader, None))
        return
    augmenter = SharedMemoryAugmenter(loader, workers, batch_bytes)
    try:
        yield _raising(augmenter)
    finally:
        augmenter.stop()


def _raising(items: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        if "error" in item:
            raise item["error"]
        yield item


class SharedMemoryAugmenter(MultiThreadedAugmenter):  # type: ignore[misc]
    """batchgenerators' augmenter for several processes, over shared memory. Items come in the loader's order."""

    def __init__(self, loader: SlimDataLoaderBase, workers: int, batch_bytes: int) -> None:
        super().__init__(loader, None, workers, num_cached_per_queue=_AHEAD, wait_time=_POLL)
        self._batch_bytes = batch_bytes
        self._workers: list[_Worker] = []
        self._taken = 0

    def _start(self) -> None:
        self._taken = 0
        for number in range(self.num_processes):
            self._workers.append(_Worker(self.generator, number, self._batch_bytes))
        self.was_initialized = True

    def __next__(self) -> dict[str, Any]:
        if not self.was_initialized:
            self._start()
        number = self._taken % self.num_processes
        while True:
            worker = self._workers[number]
            dead = not worker.process.is_alive()  # asked first: what it had sent is in the pipe by then
            try:
                item: dict[str, Any] | str = worker.queue.get(timeout=_POLL)
                break
            except Empty:
                if dead:
                    raise self._death(worker) from None
                if worker.is_stuck():
                    self._workers[number] = self._replaced(worker)
        if isinstance(item, str):  # batchgenerators' "end": batches come in order, so that no worker has more
            raise StopIteration
        self._taken += 1
        batch: dict[str, Any] = worker.slots.take(item)
        return batch

    def _replaced(self, worker: _Worker) -> _Worker:
        """Fork once more: another moment, other locks."""
        worker.end()
        if worker.attempt == _ATTEMPTS:
            self.stop()
            raise SegplugError(
                f"a process that loads training batches did not begin in {_ATTEMPTS} attempts. Train with --workers 0, "
                "which loads in the training's own process"
            )
        return _Worker(self.generator, worker.number, self._batch_bytes, worker.attempt + 1)

    def _death(self, worker: _Worker) -> SegplugError:
        code = worker.process.exitcode
        self.stop()
        return SegplugError(
            f"a process that loads training batches ended by itself (exit code {code}; -9: killed, often for want of "
            f"memory). Train with fewer --workers; --workers 0 loads in the training's own process"
        )

    def _finish(self, timeout: float = 10, force: bool = False) -> None:
        self.stop()

    def stop(self) -> None:
        """End the workers at once: they hold nothing worth saving."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end()
        self._workers = []
        self.was_initialized = False


class _Worker:
    """A forked process that makes every n-th batch, its queue and its part of the shared memory."""

    def __init__(self, loader: SlimDataLoaderBase, number: int, batch_bytes: int, attempt: int = 1) -> None:
        context = multiprocessing.get_context("fork")
        self.number, self.attempt = number, attempt
        self.queue = context.Queue(_AHEAD)
        self.slots = _Slots(batch_bytes)
        self._begun = mmap.mmap(-1, 1)  # no lock, unlike an Event: a killed worker cannot keep it
        self._since = time.monotonic()
        generator = _InWorker(loader, self.slots)
        arguments = (self.queue, generator, None, number, number, context.Event(), None, _POLL)
        self.process = context.Process(target=_work, args=(os.getpid(), self._begun, arguments), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # until the worker can ignore it
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads; see above
                self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def is_stuck(self) -> bool:
        """Whether it waits for what a thread held that did not come along in the fork."""
        limit = _BEGIN_WITHIN * 2 ** (self.attempt - 1)
        return self._begun[0] == 0 and time.monotonic() - self._since > limit

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.queue.cancel_join_thread()
        self.queue.close()


def _work(parent: int, begun: mmap.mmap, arguments: tuple[Any, ...]) -> None:
    """What a worker runs: no reaction to Ctrl-C, an end with its parent, one torch thread, then the producer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends its workers
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    np.random.seed(0)  # noqa: NPY002 - takes the lock that batchgenerators takes next
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    begun[0] = 1
    producer(*arguments)


class _InWorker(SlimDataLoaderBase):  # type: ignore[misc]
    """The loader as a worker runs it: its batches go to shared memory."""

    def __init__(self, loader: SlimDataLoaderBase, slots: _Slots) -> None:
        super().__init__(None, loader.batch_size, loader.number_of_threads_in_multithreaded)
        self._loader, self._slots = loader, slots

    def set_thread_id(self, thread_id: int) -> None:
        self._loader.set_thread_id(thread_id)

    def generate_train_batch(self) -> dict[str, Any]:
        return self._slots.put(self._loader.generate_train_batch())


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


class _Slots:
    """Shared memory for the batches that one worker has under way, used in turn.

    No slot needs to be given back: the queue lets a worker begin a batch only when all but the last `_AHEAD` were
    fetched, and `take` copies before the next one is.
    """

    def __init__(self, batch_bytes: int) -> None:
        self._size = batch_bytes + 8 * _ALIGNED
        self._memory = [mmap.mmap(-1, self._size) for _ in range(_SLOTS)]
        self._put = 0

    def put(self, item: dict[str, Any]) -> dict[str, Any]:
        """Copy the item's arrays into the next slot; returns the item with their places instead."""
        slot, offset, placed = self._put % _SLOTS, 0, {}
        self._put += 1
        for key, value in item.items():
            if isinstance(value, np.ndarray) and offset + value.nbytes <= self._size:
                room = np.frombuffer(self._memory[slot], value.dtype, value.size, offset).reshape(value.shape)
                np.copyto(room, value)
                placed[key] = (slot, offset, value.dtype.str, value.shape)
                offset += -(-value.nbytes // _ALIGNED) * _ALIGNED
        return {**item, **placed, "placed": tuple(placed)}

    def take(self, item: dict[str, Any]) -> dict[str, Any]:
        """The item with its arrays, copied out of the slot."""
        for key in item.pop("placed"):
            slot, offset, dtype, shape = item[key]
            count = int(np.prod(shape))
            item[key] = np.frombuffer(self._memory[slot], dtype, count, offset).reshape(shape).copy()
        return item
