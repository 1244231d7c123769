"""The local executor: completion order, errors, dead workers, interrupts."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from segplug.errors import DataError, PluginError
from segplug.kernel import Kernel
from segplug_builtin.executors import LocalExecutor, WorkerLostError

FUNCTIONS = """
import os, signal, sys, time
from segplug.errors import DataError

class Stubborn(Exception):
    def __init__(self, a, b):
        super().__init__("stubborn")

def square(x): return x * x
def add(x, y): return x + y
def slow_first(x):
    time.sleep(0.4 if x == 0 else 0)
    return x
def fail_on_two(x):
    if x == 2: raise DataError("case 2: bad")
    return x
def die_on_two(x):
    if x == 2: os.kill(os.getpid(), signal.SIGKILL)
    return x
def leave(x): sys.exit(3)
def pid(x): return os.getpid()
def sleep(x): time.sleep(x); return x
def unpicklable(x): return lambda: x
def stubborn(x): raise Stubborn(1, 2)
def modules(x): import numpy; return sorted(m for m in ("torch", "scipy", "segplug.stages") if m in sys.modules)
def threads(x):
    import numpy
    numpy.ones((300, 300)) @ numpy.ones((300, 300))
    return int(open("/proc/self/status").read().split("Threads:")[1].split()[0])
def leaves_child(x):
    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
def talk(x): print("chatter"); return x
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "functions_for_workers.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("functions_for_workers")
    sys.modules.pop("functions_for_workers", None)


@pytest.fixture(params=[0, 1, 2])
def executor(request: pytest.FixtureRequest) -> Iterator[LocalExecutor]:
    made = LocalExecutor(workers=request.param)
    yield made
    made.close()


@pytest.fixture
def two() -> Iterator[LocalExecutor]:
    made = LocalExecutor(workers=2)
    yield made
    made.close()


def test_work_that_no_worker_could_find_is_an_error_that_says_what_to_do() -> None:
    made = LocalExecutor(workers=1)
    with pytest.raises(PluginError, match=r"cannot be sent to worker processes: .*lambda.* top level.*--workers 0"):
        list(made.map(lambda item: item, [1]))
    made.close()


def test_every_item_has_its_outcome(executor: LocalExecutor, functions: ModuleType) -> None:
    found = {o.index: o.value for o in executor.map(functions.square, range(20))}
    assert found == {i: i * i for i in range(20)}
    assert {o.value for o in executor.map(partial(functions.add, y=1), [1, 2])} == {2, 3}
    assert list(executor.map(functions.square, [])) == []


def test_it_is_the_builtin_component() -> None:
    made = Kernel(discover=False).registry.build("executors", "local", workers=0)
    assert [o.value for o in made.map(abs, [-1])] == [1]


def test_outcomes_come_as_they_end(two: LocalExecutor, functions: ModuleType) -> None:
    assert [o.index for o in two.map(functions.slow_first, [0, 1, 2])][-1] == 0


def test_an_error_belongs_to_its_item(executor: LocalExecutor, functions: ModuleType) -> None:
    outcomes = {o.index: o for o in executor.map(functions.fail_on_two, range(4))}
    assert isinstance(outcomes[2].error, DataError)
    assert str(outcomes[2].error) == "case 2: bad"
    assert [outcomes[i].value for i in (0, 1, 3)] == [0, 1, 3]


def test_workers_are_kept_for_the_next_map(two: LocalExecutor, functions: ModuleType) -> None:
    first = {o.value for o in two.map(functions.pid, range(8))}
    second = {o.value for o in two.map(functions.pid, range(8))}
    assert first | second == first
    assert os.getpid() not in first


def test_a_killed_worker_costs_its_item_only(two: LocalExecutor, functions: ModuleType) -> None:
    outcomes = {o.index: o for o in two.map(functions.die_on_two, range(6))}
    assert isinstance(outcomes[2].error, WorkerLostError)
    assert "2: the worker process was killed by SIGKILL" in str(outcomes[2].error)
    assert [outcomes[i].value for i in (0, 1, 3, 4, 5)] == [0, 1, 3, 4, 5]


def test_an_exit_of_the_function_is_an_error(two: LocalExecutor, functions: ModuleType) -> None:
    errors = [str(o.error) for o in two.map(functions.leave, range(3))]
    assert len(errors) == 3
    assert all("exit code 3" in e for e in errors)


def test_a_dead_worker_is_seen_though_its_child_holds_the_socket(two: LocalExecutor, functions: ModuleType) -> None:
    start = time.monotonic()
    assert [type(o.error) for o in two.map(functions.leaves_child, [0])] == [WorkerLostError]
    assert time.monotonic() - start < 3


def test_a_worker_killed_while_idle_is_replaced(two: LocalExecutor, functions: ModuleType) -> None:
    for pid in {o.value for o in two.map(functions.pid, range(4))}:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    assert sorted(o.value for o in two.map(functions.square, range(4)) if o.error is None) == [0, 1, 4, 9]


def test_what_cannot_be_pickled_is_an_error_of_its_item(two: LocalExecutor, functions: ModuleType) -> None:
    assert all(o.error is not None for o in two.map(functions.unpicklable, [1, 2]))
    outcomes = {o.index: o for o in two.map(functions.square, [1, lambda: 0, 3])}
    assert outcomes[1].error is not None
    assert [outcomes[0].value, outcomes[2].value] == [1, 9]
    assert all("stubborn" in str(o.error) for o in two.map(functions.stubborn, [1]))


def test_leaving_early_does_not_mix_results(two: LocalExecutor, functions: ModuleType) -> None:
    running = two.map(functions.sleep, [0.01, 30, 30])
    next(running)
    start = time.monotonic()
    assert sorted(o.value for o in two.map(functions.square, range(4))) == [0, 1, 4, 9]
    with pytest.raises(RuntimeError, match="another map"):
        next(running)
    assert time.monotonic() - start < 10


def test_close_ends_busy_workers(two: LocalExecutor, functions: ModuleType) -> None:
    running = two.map(functions.sleep, [0.01, 60])
    next(running)
    start = time.monotonic()
    two.close()
    assert time.monotonic() - start < 5


def test_items_are_drawn_as_they_are_needed(two: LocalExecutor, functions: ModuleType) -> None:
    drawn = []

    def items() -> Iterator[int]:
        for i in range(100):
            drawn.append(i)
            yield i

    running = two.map(functions.square, items())
    next(running)
    assert len(drawn) < 10


def test_workers_may_start_before_there_is_work(two: LocalExecutor, functions: ModuleType) -> None:
    two.start("scipy", "no_such_module")
    started = {worker.process.pid for worker in two._workers}
    assert len(started) == 2
    two.start("scipy")  # once is enough
    assert {o.value for o in two.map(functions.pid, range(8))} <= started
    assert all(o.value == ["scipy"] for o in two.map(functions.modules, [0, 1]))


def test_workers_that_were_started_in_vain_are_not_waited_for() -> None:
    executor = LocalExecutor(workers=2)
    executor.start("torch")
    processes = [worker.process for worker in executor._workers]
    start = time.monotonic()
    executor.close()
    assert time.monotonic() - start < 0.5
    assert all(process.poll() is not None for process in processes)
    LocalExecutor(workers=0).start()  # there are none


def test_workers_are_light_and_limited(two: LocalExecutor, functions: ModuleType) -> None:
    assert [o.value for o in two.map(functions.modules, [0])] == [[]]
    alone = LocalExecutor(workers=1, threads=1)
    assert [o.value for o in alone.map(functions.threads, [0])] == [2]  # the main one and the one that listens
    alone.close()


SCRIPT = """
import sys, time
sys.path.insert(0, {path!r})
import functions_for_workers as f
from segplug_builtin.executors import LocalExecutor
executor = LocalExecutor(workers=2)
print(sorted(o.value for o in executor.map(f.pid, range(4)))[0], flush=True)
for o in executor.map({call}, {items}):
    print("item", flush=True)
"""


def test_a_script_needs_no_guard_and_workers_do_not_print_to_stdout(functions: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(path=str(tmp_path), call="f.talk", items="[1, 2]"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[1:] == ["item", "item"]
    assert done.stderr.replace("\n", "") == "chatterchatter"  # two workers' words and line ends may mix


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(functions: ModuleType, tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(path=str(tmp_path), call="f.sleep", items="[60, 60]"))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.2)
    parent.send_signal(how)
    parent.communicate(timeout=20)
    assert parent.returncode != 0
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            break
        time.sleep(0.05)
    else:
        pytest.fail("the worker is still there")
