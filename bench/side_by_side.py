"""The frame of the side-by-side benchmarks: both programs in turn, as process trees, on the same cores.

A benchmark (`bench/<family>.py`) makes its inputs, says which commands are compared (`alternate`) and which aims its
figures have (`compare`, `below`), and ends with `finish`, which prints the rows, writes `bench-results/<family>.json`
and brings `docs/benchmarks.json` and `docs/benchmarks.md` up to date.

nnunetv2 runs in the environment whose Python SEGPLUG_PEER names (`nox -s bench` makes one). Without it the rows show
segplug's figures alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import report
import table
from segplug.runtime.process_tree import UsageMeter

ROOT = Path(__file__).resolve().parent.parent
OWN, PEER_SCRIPTS = ROOT / "bench" / "own", ROOT / "bench" / "peer"
SEGPLUG, NNUNET = "segplug", "nnunetv2"
WITHOUT_BF16 = "this CPU has no bf16"
Before = Callable[[], None]


@dataclass(frozen=True)
class Measured:
    """One run of one program.

    Args:
        seconds, cpu_seconds, peak_memory_mb: of the process tree, from its start to its end.
        figures: what the program itself measured and wrote to the file that $BENCH_FIGURES names.
    """

    seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    figures: Mapping[str, Any] = field(default_factory=dict)

    def value(self, name: str) -> float:
        """A figure by its name; the program's own ones first."""
        return float(self.figures[name] if name in self.figures else getattr(self, name))


@dataclass(frozen=True)
class Program:
    """One side of a comparison.

    Args:
        commands: run one after the other; their sum is measured, their highest peak.
        environment: beside what all get.
        before: called before each run, unmeasured: to remove what the last one made.
    """

    commands: Sequence[Sequence[str | Path]]
    environment: Mapping[str, str] = field(default_factory=dict)
    before: Before = lambda: None


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        what: is measured.
        unit: of both figures.
        segplug, nnunetv2: medians; None where nnunetv2 was not run, segplug failed, or this machine can't tell.
        ratio: segplug's gain: nnunetv2's figure by segplug's (for speeds the other way round); None without it.
        aim: as the table tells it, ">= 12x".
        reached: whether it is; None where only nnunetv2 or another machine could tell.
        repetitions: of each program.
        remark: what else must be known, such as the sizes.
    """

    what: str
    unit: str
    segplug: float | None
    nnunetv2: float | None
    ratio: float | None
    aim: str
    reached: bool | None
    repetitions: int
    remark: str = ""


class Benchmark:
    """A family of rows.

    Args:
        name: of the family, and of its file.
        arguments: of the command line, see `arguments`.
    """

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self.name, self.quick, self.repetitions = name, bool(arguments.quick), int(arguments.repetitions)
        self.cpu_time = bool(arguments.cpu_time)
        self.peer: str | None = None if arguments.alone else os.environ.get("SEGPLUG_PEER")
        self.rows: list[Row] = []
        self.runs: dict[str, dict[str, list[Measured]]] = {}
        # ended from outside, programs are ended too and folders removed
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        self._all_cores = sorted(os.sched_getaffinity(0))

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """For what the benchmark makes; vanishes with it."""
        with tempfile.TemporaryDirectory(prefix=f"bench-{self.name}-") as name:
            yield Path(name)

    @property
    def cores(self) -> int:
        """That programs get, unless a row has but one; which ones, `taskset` decides."""
        return len(self.pinned())

    def pinned(self, count: int = 2) -> list[int]:
        """The first cores of this process, at most so many."""
        return self._all_cores[:count]

    def alternate(
        self,
        what: str,
        programs: Mapping[str, Program],
        *,
        cores: int = 2,
        threads: int | None = None,
        repetitions: int | None = None,
    ) -> dict[str, list[Measured]]:
        """Run the programs in turn, A B A B, and return their runs.

        Args:
            programs: by name, `segplug` and `nnunetv2`; the latter is left out where it is not at hand.
            cores: that each is pinned to.
            threads: OMP_NUM_THREADS; None for as many as cores.
            repetitions: None for those of the command line.
        """
        names = [name for name in programs if name != NNUNET or self.peer]
        runs: dict[str, list[Measured]] = {name: [] for name in names}
        pinned = self.pinned(cores)
        for number in range(self.repetitions if repetitions is None else repetitions):
            for name in names:
                runs[name].append(run(programs[name], pinned, threads or len(pinned)))
                done = runs[name][-1]
                say(
                    f"  {what}, {name} {number + 1}: {done.seconds:.2f} s, {done.cpu_seconds:.2f} s of CPU, "
                    f"{done.peak_memory_mb:.0f} MB{_told(done.figures)}"
                )
        self.runs[what] = runs
        return runs

    def compare(
        self,
        what: str,
        runs: Mapping[str, Sequence[Measured]],
        figure: str,
        unit: str,
        *,
        at_least: float,
        aim: str | None = None,
        remark: str = "",
    ) -> None:
        """A row whose aim is a ratio: segplug needs `at_least` so many times less.

        Args:
            figure: `seconds`, `cpu_seconds`, `peak_memory_mb`, or one that both programs write.
            aim: in words; None for ">= 12x".
        """
        figure, unit = self._clock(figure, unit)
        mine = _median(runs[SEGPLUG], figure)
        theirs = _median(runs[NNUNET], figure) if NNUNET in runs else None
        ratio = None if theirs is None else theirs / mine
        reached = None if ratio is None else ratio >= at_least
        count = len(runs[SEGPLUG])
        aim = f"≥ {at_least:g}x" if aim is None else aim
        self.rows.append(Row(what, unit, mine, theirs, ratio, aim, reached, count, remark))

    def below(
        self, what: str, runs: Sequence[Measured] | float, figure: str, unit: str, *, limit: float, remark: str = ""
    ) -> None:
        """A row whose aim is a limit for segplug alone."""
        figure, unit = self._clock(figure, unit)
        value = runs if isinstance(runs, (int, float)) else _median(runs, figure)
        count = 1 if isinstance(runs, (int, float)) else len(runs)
        self.rows.append(Row(what, unit, value, None, None, f"≤ {limit:g} {unit}", value <= limit, count, remark))

    def failed(self, what: str, unit: str, *, limit: float, remark: str = "") -> None:
        """A row whose program did not come to its end: told, and no reason to leave out the other rows."""
        self.rows.append(Row(what, unit, None, None, None, f"≤ {limit:g} {unit}", False, 1, remark))

    def not_here(self, what: str, unit: str, *, at_least: float, remark: str) -> None:
        """A row for another machine; `remark` says why."""
        self.rows.append(Row(what, unit, None, None, None, f"≥ {at_least:g}x", None, 0, remark))

    def _clock(self, figure: str, unit: str) -> tuple[str, str]:
        """The figure to judge by: seconds of CPU in place of seconds, where the machine is not ours alone."""
        timed = figure.endswith("seconds") and not figure.startswith("cpu_")
        return (f"cpu_{figure}", f"{unit} of CPU") if timed and self.cpu_time else (figure, unit)

    def finish(self) -> int:
        """Print, write and tell: 1 if an aim is missed."""
        figures = {
            "rows": [asdict(row) for row in self.rows],
            "runs": {what: {n: [asdict(r) for r in done] for n, done in of.items()} for what, of in self.runs.items()},
            "quick": self.quick,
            "cpu_time": self.cpu_time,
        }
        versions = peer_versions(self.peer) if self.peer else {}
        path = report.write(self.name, figures, versions)
        say("\n".join(table.as_text(figures["rows"])))
        if not self.quick and self.peer:
            table.update(json.loads(path.read_text(encoding="utf-8")))
        say(str(path))
        return 1 if any(row.reached is False for row in self.rows) else 0


def run(program: Program, cores: Sequence[int], threads: int) -> Measured:
    """Run one program to its end.

    Raises:
        SystemExit: a command failed; its last lines are shown.
    """
    program.before()
    total: list[Measured] = []
    for command in program.commands:
        with tempfile.TemporaryDirectory(prefix="bench-run-") as name:
            figures = Path(name) / "figures.json"
            environment = {
                # modules are compiled once, as those of an installed package are
                **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
                "OMP_NUM_THREADS": str(threads),
                "MKL_NUM_THREADS": str(threads),
                "OPENBLAS_NUM_THREADS": str(threads),
                "BENCH_FIGURES": str(figures),
                **program.environment,
            }
            log = Path(name) / "log.txt"
            pinned = ["taskset", "-c", ",".join(map(str, cores)), *map(str, command)]
            with log.open("wb") as stream:
                began = time.perf_counter()
                process = subprocess.Popen(
                    pinned, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
                )
                with UsageMeter(process.pid) as meter:
                    try:
                        _, status, used = os.wait4(process.pid, 0)
                    finally:  # whether it ended or this program is ended: nothing of it stays
                        with suppress(ProcessLookupError):
                            os.killpg(process.pid, signal.SIGKILL)
                    seconds = time.perf_counter() - began
                process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                text = log.read_text(encoding="utf-8", errors="replace")[-4000:]
                raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{text}")
            written = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {}
        # the system's own maximum (ru_maxrss) would count what this process had when it started the other one
        cpu, peak = used.ru_utime + used.ru_stime, meter.usage.peak_memory / 1e6
        total.append(Measured(seconds, cpu, peak, written))
    merged = {key: value for done in total for key, value in done.figures.items()}
    return Measured(
        sum(done.seconds for done in total),
        sum(done.cpu_seconds for done in total),
        max(done.peak_memory_mb for done in total),
        merged,
    )


def peer_versions(python: str) -> dict[str, str]:
    """Versions of nnunetv2 and of what it computes with."""
    ask = (
        "import json; from importlib.metadata import version as v; "
        "print(json.dumps({'nnunetv2': v('nnunetv2'), 'nnunetv2 torch': v('torch'), 'nnunetv2 numpy': v('numpy')}))"
    )
    done = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def arguments(description: str | None, repetitions: int = 5) -> argparse.Namespace:
    """The command line of a benchmark.

    Args:
        description: the script's docstring.
        repetitions: unless others are asked for.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=repetitions, help="of each program [default: %(default)s]")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; no table is written")
    parser.add_argument("--cpu-time", action="store_true", help="judge by CPU time: others use this machine too")
    parser.add_argument("--alone", action="store_true", help="segplug alone, without nnunetv2")
    return parser.parse_args()


def shared_datasets() -> Path:
    """Folder of the real data sets.

    Raises:
        SystemExit: it is not there.
    """
    folder = (ROOT / os.environ.get("SEGPLUG_SHARED", "../shared")).resolve() / "datasets"
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not there; set SEGPLUG_SHARED")
    return folder


def say(text: str) -> None:
    """A line for whoever waits."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _median(runs: Sequence[Measured], figure: str) -> float:
    return statistics.median(done.value(figure) for done in runs)


def _told(figures: Mapping[str, Any]) -> str:
    return "".join(f", {key} {value:.4g}" for key, value in figures.items() if isinstance(value, (int, float)))
