"""The local executor: this process, or worker processes of this machine.

Workers are plain Python programs joined by a socket. They import neither the caller's main module nor what the parent
has loaded, so scripts need no guard and no fork copies locks or threads; they are started when there is first something
to do and kept for all stages. A worker that dies closes its socket, which is how no result is waited for in vain.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from segplug.errors import PluginError, SegplugError
from segplug.protocols import Outcome

T = TypeVar("T")
R = TypeVar("R")

_BOOT = (
    "import json, os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT]); "
    "sys.path[:] = json.loads(sys.argv[2]); os.environ.update(json.loads(sys.argv[3])); "
    "from segplug_builtin.worker_process import serve; serve(int(sys.argv[1]), json.loads(sys.argv[4]))"
)
_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
"""Environment variables by which numerical libraries, torch among them, choose their number of threads. They are set in
the worker before anything is imported: OpenBLAS reads them once, when NumPy loads it."""

_POLL = 1.0
"""Seconds between looks at whether workers live, should a process that they started hold their socket open."""


class WorkerLostError(SegplugError):
    """A worker process ended while it worked on an item."""


class LocalExecutor:
    """Runs a function over items, here or in worker processes.

    Args:
        workers: processes; 0 works in this process, item by item.
        threads: threads each worker's libraries may use; by default the cores shared out among the workers. Work in
            this process is not limited.
    """

    def __init__(self, workers: int = 0, threads: int | None = None) -> None:
        if workers < 0:
            raise ValueError(f"workers: {workers}; expected 0 or more")
        self._count = workers
        self._threads = threads or max(1, _cores() // max(1, workers))
        self._workers: list[_Worker] = []
        self._run = 0
        self._finalizer = weakref.finalize(self, _end_all, self._workers, os.getpid())

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[Outcome[R]]:
        """Yield one outcome per item, as they end; items are drawn one by one as workers become free.

        What the function raises is its item's error, as is a `WorkerLostError` where the worker was killed or crashed;
        a fresh worker then goes on. Leaving the loop early, or an interrupt, ends the workers that are still busy.
        Another `map` of the same executor takes the workers over, so finish one before the next.

        Raises:
            PluginError: the function cannot be pickled, and there are worker processes.
        """
        if self._count == 0:
            return _here(function, items)
        return self._there(function, items)

    def start(self, *modules: str) -> None:
        """Start the workers before there is work, see `segplug.protocols.StartsEarly`."""
        while len(self._workers) < self._count:
            self._workers.append(_Worker(self._threads, modules))

    def close(self) -> None:
        """End the workers."""
        self._run += 1
        _end_all(self._workers, os.getpid())

    def _there(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[Outcome[R]]:
        self._run += 1
        run = self._run
        work = _pickled_work(function)
        queue = enumerate(items)
        self._drop([w for w in self._workers if w.item is not None])  # left over from a map that was abandoned
        try:
            drawn_all = False
            while True:
                while not drawn_all and (worker := self._idle()) is not None:
                    try:
                        index, item = next(queue)
                    except StopIteration:
                        drawn_all = True
                        break
                    error = self._give(worker, run, work, index, item)
                    if error is not None:
                        yield Outcome(index, error=error)
                        self._require_current(run)
                busy = [w for w in self._workers if w.item is not None]
                if not busy:
                    return
                for outcome in self._collect(busy):
                    yield outcome
                    self._require_current(run)
        finally:
            if run == self._run:
                self._drop([w for w in self._workers if w.item is not None])

    def _require_current(self, run: int) -> None:
        if run != self._run:
            raise RuntimeError("the executor was closed, or began another map, before this one was finished")

    def _idle(self) -> _Worker | None:
        """A worker with nothing to do, a new one if there may be more."""
        free = next((w for w in self._workers if w.item is None), None)
        if free is None and len(self._workers) < self._count:
            free = _Worker(self._threads)
            self._workers.append(free)
        return free

    def _give(self, worker: _Worker, run: int, function: bytes, index: int, item: Any) -> Exception | None:
        """Hand an item to a worker; returns what went wrong, if anything did."""
        try:
            pickled = pickle.dumps(item, protocol=5)
        except Exception as error:  # whatever a stranger's object raises
            return error
        for _ in range(3):
            try:
                worker.send(run, function, index, item, pickled)
                return None
            except OSError:  # it died while it had nothing to do
                self._drop([worker])
                fresh = self._idle()
                assert fresh is not None
                worker = fresh
        return WorkerLostError(f"{_name(item)}: no worker process stays alive to work on it")

    def _collect(self, busy: list[_Worker]) -> Iterator[Outcome[Any]]:
        """Wait until at least one of the busy workers has answered or died."""
        ready = wait([w.connection for w in busy], _POLL)
        for worker in busy:
            if worker.connection in ready or worker.process.poll() is not None:
                index = worker.index
                try:
                    outcome = worker.receive()
                except (EOFError, OSError):
                    outcome = Outcome(index, error=worker.death())
                    self._drop([worker])
                yield outcome

    def _drop(self, workers: list[_Worker]) -> None:
        for worker in workers:
            worker.end()
            self._workers.remove(worker)


class _Worker:
    """One worker process and what it works on."""

    def __init__(self, threads: int, modules: Sequence[str] = ()) -> None:
        ours, theirs = socket.socketpair()
        limits = dict.fromkeys(_THREAD_LIMITS, str(threads)) | {"BLOSC_NTHREADS": "1"}  # chunks are small
        arguments = [str(theirs.fileno()), json.dumps(sys.path), json.dumps(limits), json.dumps(modules)]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # until the worker can ignore it
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _BOOT, *arguments],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # what a library prints must not mix with a command's output
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.connection = Connection(ours.detach())
        self.index = -1
        self.item: Any = None
        self._run = -1

    def send(self, run: int, function: bytes, index: int, item: Any, pickled: bytes) -> None:
        new = function if run != self._run else None
        self.connection.send_bytes(pickle.dumps((run, new, index, pickled), protocol=5))
        self._run, self.index, self.item = run, index, (item,)

    def receive(self) -> Outcome[Any]:
        """The answer that has come.

        Raises:
            EOFError, OSError: the worker died.
        """
        if not self.connection.poll():
            raise EOFError
        _, index, succeeded, answer = pickle.loads(self.connection.recv_bytes())
        self.item = None
        try:
            value = pickle.loads(answer)
        except Exception as error:  # whatever a stranger's object raises
            return Outcome(index, error=error)
        return Outcome(index, value=value) if succeeded else Outcome(index, error=value)

    def death(self) -> WorkerLostError:
        """The error for the item that the dead worker was busy with."""
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            code = 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = " Memory may have run out: free some, or use fewer --workers" if code == -signal.SIGKILL else ""
        return WorkerLostError(f"{_name(self.item[0])}: the worker process {how} while it worked on this.{hint}")

    def end(self) -> None:
        """End the process: by closing its socket if it has nothing to do, else by killing it."""
        if self.item is not None or self._run < 0:  # busy, or perhaps still importing
            self.process.kill()
        self.connection.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _pickled_work(function: Callable[[T], R]) -> bytes:
    try:
        return pickle.dumps(function, protocol=5)
    except Exception as error:  # whatever a stranger's object raises
        raise PluginError(
            f"this work cannot be sent to worker processes: {error}. What a plugin provides for it has to be a "
            "function or class at the top level of a module, or an object of one; --workers 0 works in this process"
        ) from error


def _here(function: Callable[[T], R], items: Iterable[T]) -> Iterator[Outcome[R]]:
    for index, item in enumerate(items):
        try:
            outcome = Outcome(index, value=function(item))
        except Exception as error:  # every item's error is its outcome
            outcome = Outcome(index, error=error)
        yield outcome


def _end_all(workers: list[_Worker], owner: int) -> None:
    if os.getpid() != owner:  # a fork has copied the list; the processes are not its own
        return
    while workers:
        workers.pop().end()


def _name(item: Any) -> str:
    name = getattr(item, "name", None)
    text = f"case {name}" if isinstance(name, str) else repr(item)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
