"""Runs a data loader of batchgenerators in this process, or in workers that never outlive it and never hang it.

batchgenerators' own augmenter for several processes sends whole batches through pipes, waits on locks that a worker
may hold when it is killed, and leaves its workers behind when the parent is. The one here has its interface and runs
its producer, but batches stand in shared memory and only their places go through the (then atomic) pipes; nothing is
waited for without a look at the worker.
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


@contextmanager
def run_loader(loader: SlimDataLoaderBase, workers: int, batch_bytes: int) -> Iterator[Iterator[dict[str, Any]]]:
    """Yield the loader's items (dicts); an item `{"error": exception}` is raised. Workers end with the block.

    Args:
        loader: its `number_of_threads_in_multithreaded` is `workers`, or 1.
        workers: processes; 0 makes the items here, when they are asked for.
        batch_bytes: of the arrays of an item, at most; larger items arrive all the same, but slowly.

    Raises:
        SegplugError: a worker died.
    """
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
        self._processes: list[Any] = []
        self._queues: list[Any] = []
        self._slots: list[_Slots] = []
        self._taken = 0

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")  # workers share what is open here, and start at once
        self._taken = 0
        for number in range(self.num_processes):
            self._queues.append(context.Queue(_AHEAD))
            self._slots.append(_Slots(self._batch_bytes))
            process = context.Process(
                target=producer,
                args=(
                    self._queues[number],
                    _InWorker(self.generator, self._slots[number]),
                    None,
                    number,
                    number,
                    context.Event(),
                    None,
                    _POLL,
                ),
                daemon=True,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: a worker uses one
                process.start()
            self._processes.append(process)
        self.was_initialized = True

    def __next__(self) -> dict[str, Any]:
        if not self.was_initialized:
            self._start()
        worker = self._taken % self.num_processes
        while True:
            dead = not self._processes[worker].is_alive()  # asked first: what it had sent is in the pipe by then
            try:
                item: dict[str, Any] | str = self._queues[worker].get(timeout=_POLL)
                break
            except Empty:
                if dead:
                    raise self._death(worker) from None
        if isinstance(item, str):  # batchgenerators' "end": batches come in order, so that no worker has more
            raise StopIteration
        self._taken += 1
        batch: dict[str, Any] = self._slots[worker].take(item)
        return batch

    def _death(self, worker: int) -> SegplugError:
        code = self._processes[worker].exitcode
        self.stop()
        return SegplugError(
            f"a process that loads training batches ended by itself (exit code {code}; -9: killed, often for want of "
            f"memory). Train with fewer --workers; --workers 0 loads in the training's own process"
        )

    def _finish(self, timeout: float = 10, force: bool = False) -> None:
        self.stop()

    def stop(self) -> None:
        """End the workers at once: they hold nothing worth saving."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for queue in self._queues:
            queue.cancel_join_thread()
            queue.close()
        self._processes, self._queues, self._slots = [], [], []
        self.was_initialized = False


class _InWorker(SlimDataLoaderBase):  # type: ignore[misc]
    """The loader as a worker runs it: one torch thread, no reaction to Ctrl-C, an end with its parent."""

    def __init__(self, loader: SlimDataLoaderBase, slots: _Slots) -> None:
        super().__init__(None, loader.batch_size, loader.number_of_threads_in_multithreaded)
        self._loader, self._slots = loader, slots

    def set_thread_id(self, thread_id: int) -> None:
        """The first thing that batchgenerators calls in a worker."""
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends its workers
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
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
