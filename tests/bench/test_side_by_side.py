"""The frame of the benchmarks beside nnunetv2, with made-up programs, and each benchmark itself in a tiny size."""

from __future__ import annotations

import argparse
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from segplug.runtime.device import cpu_has_bf16

BENCH = Path(__file__).resolve().parents[2] / "bench"
BUSY = "import time; end = time.process_time() + {}\nwhile time.process_time() < end: pass"


@pytest.fixture
def make(side_by_side: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Make a benchmark that writes into a temporary folder."""
    monkeypatch.setattr(side_by_side.report, "FOLDER", tmp_path)
    monkeypatch.setattr(side_by_side, "peer_versions", lambda _: {"nnunetv2": "2.8.1"})
    updated: list[Any] = []
    monkeypatch.setattr(side_by_side.table, "update", updated.append)
    monkeypatch.setenv("SEGPLUG_PEER", sys.executable)
    before = signal.getsignal(signal.SIGTERM)

    def made(**options: Any) -> Any:
        settings = {"quick": False, "repetitions": 3, "cpu_time": False, "alone": False, **options}
        benchmark = side_by_side.Benchmark("example", argparse.Namespace(**settings))
        benchmark.updated = updated
        return benchmark

    yield made
    signal.signal(signal.SIGTERM, before)


def program(side_by_side: ModuleType, code: str, **options: Any) -> Any:
    return side_by_side.Program([[sys.executable, "-c", code]], **options)


def figures(**values: float) -> str:
    return f"import json, os; open(os.environ['BENCH_FIGURES'], 'w').write(json.dumps({values!r}))"


def test_programs_take_turns_on_the_same_cores(side_by_side: ModuleType, make: Callable[..., Any]) -> None:
    order: list[str] = []
    code = "import os; assert len(os.sched_getaffinity(0)) == 1; assert os.environ['OMP_NUM_THREADS'] == '1'"
    programs = {
        name: program(side_by_side, code, before=lambda name=name: order.append(name))
        for name in ("segplug", "nnunetv2")
    }
    runs = make().alternate("x", programs, cores=1)
    assert order == ["segplug", "nnunetv2"] * 3
    assert {name: len(done) for name, done in runs.items()} == {"segplug": 3, "nnunetv2": 3}


def test_what_is_measured(side_by_side: ModuleType) -> None:
    child = BUSY.format(0.3)
    code = f"""
import subprocess, sys, time
held = bytearray(100_000_000)
held[::4096] = b'x' * len(held[::4096])
subprocess.run([sys.executable, '-c', {child!r}], check=True)
time.sleep(0.3)
"""
    commands = [[sys.executable, "-c", code], [sys.executable, "-c", BUSY.format(0.1)]]
    done = side_by_side.run(side_by_side.Program(commands), sorted(os.sched_getaffinity(0)), 1)
    assert done.seconds > 0.7  # of both commands together
    assert 0.38 < done.cpu_seconds < 2
    assert 100 < done.peak_memory_mb < 160  # of the larger one


def test_a_program_that_fails_is_told_with_its_last_words(side_by_side: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"(?s)ended with 3:\nlast words"):
        side_by_side.run(program(side_by_side, "import sys; print('last words'); sys.exit(3)"), [0], 1)


def test_what_a_program_leaves_behind_is_ended(side_by_side: ModuleType, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    child = "import time; time.sleep(60)"
    code = "import os, subprocess, sys\n"
    code += f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
    code += f"open({str(told)!r}, 'w').write(str(child.pid)); os._exit(0)"
    side_by_side.run(program(side_by_side, code), sorted(os.sched_getaffinity(0)), 1)
    stat = Path("/proc") / told.read_text() / "stat"
    for _ in range(100):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the child lives on")


def test_rows_and_what_is_written(side_by_side: ModuleType, make: Callable[..., Any], tmp_path: Path) -> None:
    benchmark = make()
    mine = program(side_by_side, figures(inner_seconds=2.0, cpu_inner_seconds=1.0))
    theirs = program(side_by_side, figures(inner_seconds=10.0, cpu_inner_seconds=3.0))
    runs = benchmark.alternate("x", {"segplug": mine, "nnunetv2": theirs})
    benchmark.compare("reached", runs, "inner_seconds", "s", at_least=5)
    benchmark.compare("missed", runs, "inner_seconds", "s", at_least=5.1, remark="size")
    benchmark.below("limit", runs["segplug"], "inner_seconds", "s", limit=2)
    benchmark.below("a number", 0.3, "", "", limit=0.2)
    benchmark.failed("no end", "MB", limit=4000)
    benchmark.not_here("another machine's", "s", at_least=2, remark="why")
    assert benchmark.finish() == 1
    entry = json.loads((tmp_path / "example.json").read_text())
    assert entry.keys() == {"name", "figures", "machine", "versions", "time"}
    assert entry["versions"]["nnunetv2"] == "2.8.1"
    rows = entry["figures"]["rows"]
    assert [row["reached"] for row in rows] == [True, False, True, False, False, None]
    assert (rows[5]["segplug"], rows[5]["aim"], rows[5]["repetitions"]) == (None, "≥ 2x", 0)
    assert (rows[4]["segplug"], rows[4]["aim"]) == (None, "≤ 4000 MB")
    assert rows[0] == {
        "what": "reached",
        "unit": "s",
        "segplug": 2.0,
        "nnunetv2": 10.0,
        "ratio": 5.0,
        "aim": "≥ 5x",
        "reached": True,
        "repetitions": 3,
        "remark": "",
    }
    assert len(entry["figures"]["runs"]["x"]["segplug"]) == 3
    assert benchmark.updated == [entry]


def test_by_cpu_time(side_by_side: ModuleType, make: Callable[..., Any]) -> None:
    benchmark = make(cpu_time=True, repetitions=1)
    wait = "; import time; time.sleep(0.3)"  # for its memory to be seen
    mine = program(side_by_side, figures(inner_seconds=2.0, cpu_inner_seconds=1.0) + wait)
    theirs = program(side_by_side, figures(inner_seconds=2.0, cpu_inner_seconds=3.0) + wait)
    runs = benchmark.alternate("x", {"segplug": mine, "nnunetv2": theirs})
    benchmark.compare("row", runs, "inner_seconds", "s", at_least=2)
    benchmark.compare("memory", runs, "peak_memory_mb", "MB", at_least=0.1)
    assert [(row.ratio, row.unit) for row in benchmark.rows[:1]] == [(3.0, "s of CPU")]
    assert benchmark.rows[1].unit == "MB"


def test_without_the_peer(side_by_side: ModuleType, make: Callable[..., Any]) -> None:
    benchmark = make(alone=True, repetitions=1)
    never = program(side_by_side, "raise SystemExit(1)")
    runs = benchmark.alternate("x", {"segplug": program(side_by_side, "pass"), "nnunetv2": never})
    benchmark.compare("row", runs, "seconds", "s", at_least=2)
    row = benchmark.rows[0]
    assert (row.nnunetv2, row.ratio, row.reached) == (None, None, None)
    assert benchmark.finish() == 0
    assert benchmark.updated == []  # the table is of both programs


def test_the_table_is_left_alone_by_tiny_sizes(side_by_side: ModuleType, make: Callable[..., Any]) -> None:
    benchmark = make(quick=True)
    benchmark.below("row", 1.0, "", "", limit=2)
    assert benchmark.finish() == 0
    assert benchmark.updated == []


def test_ended_from_outside_it_ends_its_programs(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    code = f"""
import argparse, sys
sys.path.insert(0, {str(BENCH)!r})
import side_by_side as bench
sleeper = "import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
benchmark = bench.Benchmark("x", argparse.Namespace(quick=True, repetitions=1, cpu_time=False, alone=True))
benchmark.alternate("x", {{"segplug": bench.Program([[sys.executable, "-c", sleeper]])}})
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    while not told.exists() or not told.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    stat = Path("/proc") / told.read_text() / "stat"
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.slow
@pytest.mark.parametrize("name", runpy.run_path(str(BENCH / "table.py"))["FAMILIES"])
def test_benchmark_in_a_tiny_size(name: str, shared: Path, tmp_path: Path) -> None:
    """segplug's side of each, as a program; that the other side runs is for `nox -s bench -- --quick`."""
    code = f"""
import runpy, sys
sys.path.insert(0, {str(BENCH)!r})
import report
from pathlib import Path
report.FOLDER = Path({str(tmp_path)!r})
sys.argv = ["x", "--quick", "--alone", "--repetitions", "1"]
runpy.run_path({str(BENCH / f"{name}.py")!r}, run_name="__main__")
"""
    variables = {**os.environ, "SEGPLUG_SHARED": str(shared)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    # 1: an aim missed, as tiny sizes and busy machines do
    assert done.returncode in (0, 1), done.stdout + done.stderr
    entry = json.loads((tmp_path / f"{name}.json").read_text())
    rows = entry["figures"]["rows"]
    assert rows
    for row in rows:
        if row["remark"] == "this CPU has no bf16":
            assert row["segplug"] is None
            assert "bf16" in row["what"] or "auto" in row["what"]
            assert not cpu_has_bf16()
        else:
            assert row["segplug"] >= 0
        assert row["nnunetv2"] is None
        assert (row["reached"] is None) != row["aim"].startswith("≤ ") or "of the" in row["aim"]
