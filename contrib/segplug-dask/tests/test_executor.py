"""The executor on a real cluster of processes, one of which is killed in mid-case."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from segplug_dask.executor import DaskExecutor, NoClusterError, WorkerDiedError

from segplug.errors import SegplugError, UsageError
from segplug.kernel import Kernel
from segplug.model import ComponentRef
from segplug.testing import BoundCheck, conformance

pytestmark = pytest.mark.usefixtures("importable")


@pytest.fixture
def executor() -> Iterator[DaskExecutor]:
    """Two processes, and no second chance."""
    made = DaskExecutor(workers=2, retries=0)
    yield made
    made.close()


def told(executor: DaskExecutor, function: Any, count: int) -> dict[int, Any]:
    return {each.index: each for each in executor.map(function, range(count))}


@pytest.mark.parametrize("check", conformance("executors", "dask"), ids=str)
def test_conformance(check: BoundCheck) -> None:
    check()


def test_a_killed_worker_costs_its_case_and_the_pool_goes_on(executor: DaskExecutor, tmp_path: Path) -> None:
    from work import square_or_die

    outcomes = told(executor, partial(square_or_die, folder=str(tmp_path), deaths=9), 8)
    assert sorted(outcomes) == list(range(8))
    assert {n: each.value for n, each in outcomes.items() if n != 3} == {n: n * n for n in range(8) if n != 3}
    assert isinstance(outcomes[3].error, WorkerDiedError)
    assert isinstance(outcomes[3].error, SegplugError)  # a stage then tells of the case, and goes on
    assert "3: the worker process" in str(outcomes[3].error)
    assert len((tmp_path / "begun_3").read_text().split()) == 1
    again = told(executor, partial(square_or_die, folder=str(tmp_path), deaths=0), 4)
    assert [again[n].value for n in range(4)] == [0, 1, 4, 9]


def test_a_case_whose_worker_died_begins_anew_on_another(tmp_path: Path) -> None:
    from work import square_or_die

    executor = DaskExecutor(workers=2, retries=1)
    try:
        outcomes = told(executor, partial(square_or_die, folder=str(tmp_path), deaths=1), 6)
    finally:
        executor.close()
    assert {n: each.value for n, each in outcomes.items()} == {n: n * n for n in range(6)}
    first, second = (tmp_path / "begun_3").read_text().split()
    assert first != second


def test_workers_are_other_processes_and_end_with_the_executor(executor: DaskExecutor) -> None:
    from work import process_number

    numbers = {each.value for each in executor.map(process_number, range(4))}
    assert len(numbers) == 2
    assert os.getpid() not in numbers
    executor.close()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{number}").exists() for number in numbers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{number}").exists() for number in numbers)


def test_errors_and_items_that_cannot_travel_are_outcomes(executor: DaskExecutor) -> None:
    from work import fail_without_name

    assert "LocalError: no luck with 1" in str(told(executor, fail_without_name, 2)[1].error)
    outcomes = {each.index: each for each in executor.map(abs, [-1, lambda: 0, -3])}  # type: ignore[list-item, arg-type]
    assert (outcomes[0].value, outcomes[2].value) == (1, 3)
    assert "pickle" in str(outcomes[1].error)


def test_a_scheduler_that_runs_is_used_and_left_running() -> None:
    from distributed import Client, LocalCluster
    from work import process_number

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        executor = DaskExecutor(workers=2, address=cluster.scheduler_address)
        (outcome,) = executor.map(process_number, [0])
        assert outcome.error is None
        executor.close()
        with Client(cluster) as client:
            assert client.submit(abs, -1).result() == 1


def test_a_cluster_without_workers_does_not_hang() -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        executor = DaskExecutor(workers=2, address=cluster.scheduler_address, patience=1.5)
        outcomes = told(executor, abs, 2)
        executor.close()
    assert all(isinstance(each.error, NoClusterError) for each in outcomes.values())
    assert sorted(outcomes) == [0, 1]


def test_no_scheduler_at_the_address() -> None:
    executor = DaskExecutor(workers=2, address="tcp://127.0.0.1:9", timeout=1.0)
    with pytest.raises(NoClusterError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"):
        list(executor.map(abs, [1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "tcp://x:1", "cluster": {"kind": "local"}}, "not both"),
        ({"retries": -1}, "retries: -1; expected a whole number"),
        ({"cluster": {"kind": "slrum"}}, "kind is 'slrum'; expected one of local, slurm, pbs, lsf"),
        ({"cluster": "nowhere.toml"}, "nowhere.toml: no such cluster file"),
        ({"adress": "tcp://x:1"}, "It takes: address, cluster"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SegplugError, match=message):
        Kernel().registry.build("executors", ComponentRef("dask", options), workers=2)


def test_an_option_that_a_local_cluster_does_not_take() -> None:
    with pytest.raises(UsageError, match="cluster kind 'local' has no option cores; it takes: memory"):
        list(DaskExecutor(workers=1, cluster={"kind": "local", "cores": 3}).map(abs, [1]))
