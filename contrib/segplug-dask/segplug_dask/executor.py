"""The executor: a function over cases, on the workers of dask.distributed."""

from __future__ import annotations

import pickle
import queue
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from segplug.errors import SegplugError, UsageError
from segplug.protocols import Outcome
from segplug_dask import clusters

T = TypeVar("T")
R = TypeVar("R")

POLL = 1.0
"""Seconds between looks at whether there are workers."""


class WorkerDiedError(SegplugError):
    """The worker died while it worked on a case, as often as that may happen."""


class NoClusterError(SegplugError):
    """No scheduler, or no workers."""


class DaskExecutor:
    """Runs a function over items on the workers of a scheduler: one that is named, or one that is started here.

    Args:
        workers: how many to start; 0 works in this process, without dask.
        address: of a scheduler that runs already (``tcp://host:8786``), whose workers are used.
        cluster: what is started otherwise; see `segplug_dask.clusters.read_description`.
        cluster_workers: how many workers are started, if not `workers`, which counts this machine's cores.
        resources: that each case takes of a worker, such as ``{"GPU": 1}``; workers started here offer as much.
        retries: how often a case begins anew, after its worker died, before it is told as failed. A scheduler that runs
            already has its own number (distributed.scheduler.allowed-failures).
        timeout: seconds to wait for the scheduler.
        patience: seconds without any worker after which cases and commands are given up; None waits for ever, which
            suits queues. By default 300, and for ever with a job system.
    """

    def __init__(
        self,
        workers: int,
        address: str | None = None,
        cluster: str | Mapping[str, Any] | None = None,
        cluster_workers: int | None = None,
        resources: Mapping[str, float] | None = None,
        retries: int = 1,
        timeout: float = 30.0,
        patience: float | None = None,
    ) -> None:
        if address is not None and cluster is not None:
            raise ValueError("address and cluster: a scheduler that runs, or one to start; not both")
        counts = {"workers": workers, "cluster_workers": cluster_workers or 0, "retries": retries}
        for name, number in counts.items():
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise ValueError(f"{name}: {number!r}; expected a whole number, 0 or more")
        self._here = workers == 0
        self._count = cluster_workers or workers
        self._address = address
        try:
            self._description = clusters.read_description(cluster)
        except UsageError as error:
            raise ValueError(str(error)) from error
        self._resources = dict(resources or {})
        self._retries = retries
        self._timeout = timeout
        waits = self._description["kind"] in clusters.JOB_SYSTEMS
        self._patience = patience if patience is not None or waits else 300.0
        self._opened: list[Any] = []
        self._finalizer = weakref.finalize(self, _close_all, self._opened)

    @property
    def client(self) -> Any:
        """The `distributed.Client`, connected on first use.

        Raises:
            NoClusterError: there is no scheduler at the address.
            UsageError: the cluster does not take its options.
        """
        if not self._opened:
            self._connect()
        return self._opened[-1]

    @property
    def resources(self) -> dict[str, float]:
        """What each case takes of a worker."""
        return dict(self._resources)

    def watch(self) -> Watch:
        """Whether there are workers, from now on; raises as `client`."""
        return Watch(self.client, self._patience)

    def job_script(self) -> str:
        """The script of one job, as dask_jobqueue would send it.

        Raises:
            UsageError: the cluster is not one of jobs.
        """
        cluster = clusters.job_cluster(self._description, self._resources)
        try:
            return str(cluster.job_script())
        finally:
            cluster.close()

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[Outcome[R]]:
        """Yield one outcome per item, as they end; as many items are on their way as there are workers.

        An item whose worker dies begins anew on another one, and has a `WorkerDiedError` when its retries are used up.
        """
        return _map_here(function, items) if self._here else self._map_there(function, items)

    def close(self) -> None:
        """Leave the scheduler; end the workers, if they were started here."""
        _close_all(self._opened)

    def _connect(self) -> None:
        from distributed import Client

        if self._address is None:
            self._opened.append(clusters.start(self._description, self._count, self._resources, self._retries))
        try:
            self._opened.append(Client(self._address or self._opened[0], timeout=self._timeout, set_as_default=False))
        except (OSError, ValueError, TypeError) as error:
            _close_all(self._opened)
            raise NoClusterError(
                f"no dask scheduler answers at {self._address}: {error}. Start one (dask scheduler), correct the "
                "address, or leave it out to have workers started"
            ) from None

    def _map_there(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[Outcome[R]]:
        queued = enumerate(items)
        first = next(queued, None)
        if first is None:
            return
        work = pickle.dumps(function, protocol=5)
        client = self.client
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        pending: dict[str, tuple[Any, int, T]] = {}
        watch = self.watch()
        upcoming: tuple[int, T] | None = first
        try:
            while upcoming is not None or pending:
                slots = max(1, watch.threads())
                while upcoming is not None and len(pending) < slots:
                    index, item = upcoming
                    upcoming = next(queued, None)
                    try:
                        pickled = pickle.dumps(item, protocol=5)
                    except Exception as error:  # whatever a stranger's object raises
                        yield Outcome(index, error=error)
                        continue
                    future = client.submit(call, work, pickled, pure=False, resources=self._resources or None)
                    pending[future.key] = future, index, item
                    future.add_done_callback(lambda done: ended.put(done.key))
                try:
                    key = ended.get(timeout=POLL) if pending else None
                except queue.Empty:
                    key = None
                    if watch.given_up():
                        lost = [(index, item) for _, index, item in pending.values()]
                        client.cancel([future for future, _, _ in pending.values()], force=True)
                        pending.clear()
                        for index, item in lost:
                            yield Outcome(index, error=watch.error(name_of(item)))
                if key is not None and key in pending:
                    future, index, item = pending.pop(key)
                    yield self._outcome(future, index, name_of(item))
        finally:
            if pending:
                client.cancel([future for future, _, _ in pending.values()], force=True)

    def _outcome(self, future: Any, index: int, name: str) -> Outcome[Any]:
        error = error_of(future, name)
        if error is not None:
            return Outcome(index, error=error)
        succeeded, answer = future.result()
        try:
            value = pickle.loads(answer)
        except Exception as broken:  # whatever a stranger's object raises
            return Outcome(index, error=broken)
        return Outcome(index, value=value) if succeeded else Outcome(index, error=value)


class Watch:
    """Whether there are workers, and for how long there have been none."""

    def __init__(self, client: Any, patience: float | None) -> None:
        self._client = client
        self._patience = patience
        self._since: float | None = None

    def threads(self) -> int:
        """Of all workers together."""
        try:
            found = sum(self._client.nthreads().values())
        except Exception:  # the connection is lost: the futures tell
            found = 0
        if found:
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()
        return int(found)

    def given_up(self) -> bool:
        """Whether there have been no workers for too long."""
        self.threads()
        gone = self._since is not None and self._patience is not None
        return bool(gone and time.monotonic() - (self._since or 0.0) > (self._patience or 0.0))

    def error(self, name: str) -> NoClusterError:
        return NoClusterError(
            f"{name}: given up, for the cluster has had no worker for {self._patience:g} seconds. "
            "Start workers (dask worker ADDRESS), or wait longer: patience under [executors.dask]"
        )


def call(work: bytes, pickled: bytes) -> tuple[bool, bytes]:
    """In a worker: whether the function returned, and what it returned or raised."""
    function, item = pickle.loads(work), pickle.loads(pickled)
    try:
        return True, pickle.dumps(function(item), protocol=5)
    except Exception as error:  # every item's error is its outcome
        try:
            answer = pickle.dumps(error, protocol=5)
            pickle.loads(answer)
        except Exception:  # an error that cannot travel is told by its text
            answer = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"), protocol=5)
        return False, answer


def error_of(future: Any, name: str) -> BaseException | None:
    """What went wrong with a future that has ended, beside what its function raised."""
    from distributed import KilledWorker

    if future.status in ("cancelled", "lost"):
        return NoClusterError(f"{name}: the connection to the dask scheduler was lost while this was worked on")
    error: BaseException | None = future.exception() if future.status == "error" else None
    if not isinstance(error, KilledWorker):
        return error
    times = error.allowed_failures + 1
    often = "" if times == 1 else f" for the {times}th time" if times > 3 else f" {('', 'twice', 'thrice')[times - 1]}"
    return WorkerDiedError(
        f"{name}: the worker process (last {error.last_worker.address}) died{often} while it worked on this. Memory "
        "may have run out: give the workers more, or look into the worker's log"
    )


def name_of(item: Any) -> str:
    """What to call an item in messages."""
    name = getattr(item, "name", None)
    text = f"case {name}" if isinstance(name, str) else repr(item)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _map_here(function: Callable[[T], R], items: Iterable[T]) -> Iterator[Outcome[R]]:
    for index, item in enumerate(items):
        try:
            outcome = Outcome(index, value=function(item))
        except Exception as error:  # every item's error is its outcome
            outcome = Outcome(index, error=error)
        yield outcome


def _close_all(opened: list[Any]) -> None:
    while opened:
        opened.pop().close()
