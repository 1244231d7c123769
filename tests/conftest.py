"""Fixtures for all tests, and the table of what was compared with nnunetv2."""

from __future__ import annotations

import math
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# a busy machine is no reason to fail; in CI hypothesis' own profile draws the same examples every time
settings.register_profile("segplug", settings(), deadline=None)
settings.load_profile("segplug")

# a shell's background jobs ignore SIGINT, and so would every process that the tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

# as the command line does, before torch is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "SEGPLUG_PEER" in os.environ:
    # both programs round alike: by default MKL takes other paths for other places in memory, and where a leaky ReLU is
    # close to its bend, one last bit has become 1e-4 of a weight after 20 steps (seen on a CPU without AVX-512)
    os.environ.setdefault("MKL_CBWR", "COMPATIBLE")
if "PYTEST_XDIST_WORKER" in os.environ:  # a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent

SECTIONS = (
    "Reading",
    "Planning",
    "Preprocessing",
    "Networks",
    "Training step",
    "Augmentation",
    "Prediction",
    "After prediction",
    "Sharing",
    "Learning",
    "Inventory",
)
"""The parts of the table of parity, in order."""

INTRODUCTION = """# Parity with nnU-Net

{versions}.

What segplug computes, beside what nnunetv2 computes from the same input. Each row is one comparison, made by running
both programs; the largest difference found over all its cases stands beside the one that is allowed. Shares of voxels,
cases or entries that differ are given as such: 1e-4 is one in ten thousand. The data sets are the six that the tests
are given (MRI and microscopy, 2D and 3D; labels, regions, scribbles) and phantoms.

This page is written by a whole run of

```console
nox -s parity
```

which installs nnunetv2 in an environment of its own, runs every comparison, prints this table and fails where a
difference is larger than allowed. One part of it: `nox -s parity -- tests/parity -k planning`.
"""


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real data sets and reference results; skips where it is absent."""
    folder = (ROOT / os.environ.get("SEGPLUG_SHARED", "../shared")).resolve()
    if not (folder / "datasets").is_dir():
        pytest.skip(f"shared data is not at {folder} (set SEGPLUG_SHARED)")
    return folder


@pytest.fixture(scope="session")
def peer() -> Path:
    """Python of an environment with nnunetv2, to be run as a program of its own; skips where there is none."""
    python = os.environ.get("SEGPLUG_PEER")
    if not python:
        pytest.skip("nnunetv2 is not at hand (run by nox -s parity, or set SEGPLUG_PEER to its Python)")
    return Path(python)


@dataclass
class Row:
    """One comparison with nnunetv2; tests that compare the same thing share one."""

    section: str
    what: str
    tolerance: float
    cases: int = 0
    remarks: tuple[str, ...] = ()
    difference: float = 0.0

    @property
    def fails(self) -> bool:
        return not self.difference <= self.tolerance  # NaN fails too

    def cells(self) -> tuple[str, str, str, str]:
        counted = [str(self.cases)] if self.cases else []
        difference = f"{self.difference:.2g}" + (" (too large)" if self.fails else "")
        return self.what, ", ".join([*counted, *self.remarks]), difference, f"{self.tolerance:.2g}"


ROWS = pytest.StashKey[dict[tuple[str, str], Row]]()
Parity = Callable[..., None]


@pytest.fixture(scope="session")
def parity(pytestconfig: pytest.Config) -> Parity:
    """Record a row of the table of parity, and fail where the difference is larger than the tolerance.

    Calls with the same `section` and `what` make one row: cases are added up, the largest difference is kept.

    Args of the function:
        what: what was compared, for the reader of the table: "images, CT phantoms".
        cases: how many; or words that say what ("2 folds, 3 cases").
        difference: the largest found. For a share that should be at least x, its complement: `1 - agreement`.
        tolerance: the largest allowed. 0 for what must be equal.
        section: one of `SECTIONS`.
    """
    rows = pytestconfig.stash.setdefault(ROWS, {})

    def record(what: str, cases: int | str, difference: float, tolerance: float, *, section: str) -> None:
        assert section in SECTIONS, f"{section!r} is no part of the table: {', '.join(SECTIONS)} (tests/conftest.py)"
        row = rows.setdefault((section, what), Row(section, what, tolerance))
        assert row.tolerance == tolerance, f"{section}, {what}: allowed is {row.tolerance} there and {tolerance} here"
        if isinstance(cases, int):
            row.cases += cases
        elif cases not in row.remarks:
            row.remarks += (cases,)
        if math.isnan(difference) or difference > row.difference:
            row.difference = float(difference)
        assert difference <= tolerance, (
            f"{section}, {what}: differs from nnunetv2 by {difference}, allowed: {tolerance}"
        )

    return record


LEVEL = 1e-3
"""Of statistical comparisons: chance alone fails a whole row once in a thousand seeds (and seeds are fixed)."""


@pytest.fixture(scope="session")
def same_distribution(parity: Parity) -> Callable[..., None]:
    """Record a row for two-sample tests, and fail where the programs' distributions differ.

    The number in the table is `LEVEL` divided by the smallest p-value times the number of tests (Bonferroni): beyond 1
    the row fails, and `LEVEL` says that nothing differs at all.

    Args of the function:
        what: what was compared.
        pvalues: of every test of the row, by what it tests (for the message of a failure).
        section: one of `SECTIONS`.
    """

    def record(what: str, pvalues: Mapping[str, float], *, section: str) -> None:
        worst = min(pvalues, key=lambda name: pvalues[name])
        corrected = min(1.0, pvalues[worst] * len(pvalues))
        if corrected < LEVEL:
            listed = sorted(pvalues.items(), key=lambda pair: pair[1])[:10]
            pytest.fail(f"{section}, {what}: distributed differently: {listed} of {len(pvalues)} tests")
        parity(f"{what}: {LEVEL:g} / p", len(pvalues), LEVEL / corrected, 1, section=section)

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Print the table; write it as a page where SEGPLUG_PARITY_TABLE names one and nothing failed."""
    rows = list(config.stash.get(ROWS, {}).values())
    if not rows:
        return
    terminalreporter.section("parity with nnunetv2")
    for line in as_text(rows):
        terminalreporter.write_line(line)
    page = os.environ.get("SEGPLUG_PARITY_TABLE")
    if page and exitstatus == 0:
        Path(page).write_text("\n".join(as_page(rows, versions())) + "\n", encoding="utf-8")
        terminalreporter.write_line(f"written to {page}")
    elif page:
        terminalreporter.write_line(f"{page} is left as it was, as not every comparison passed")


def in_sections(rows: Iterable[Row]) -> Iterator[tuple[str, list[tuple[str, str, str, str]]]]:
    for section in SECTIONS:
        cells = [row.cells() for row in rows if row.section == section]
        if cells:
            yield section, cells


HEADING = ("what", "cases", "largest difference", "tolerance")


def as_text(rows: list[Row]) -> Iterator[str]:
    widths = [max(len(line[i]) for line in [HEADING, *(row.cells() for row in rows)]) for i in range(4)]
    for section, cells in in_sections(rows):
        yield section
        for line in (HEADING, *cells):
            yield "  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def as_page(rows: list[Row], compared: str) -> Iterator[str]:
    yield INTRODUCTION.format(versions=compared).rstrip()
    for section, cells in in_sections(rows):
        yield f"\n## {section}\n"
        yield f"| {' | '.join(HEADING)} |"
        yield "|---|---|--:|--:|"
        yield from (f"| {' | '.join(line)} |" for line in cells)


def versions() -> str:
    """What was compared: "segplug 0.1.0 (PyTorch 2.13.0) beside nnunetv2 2.8.1 (PyTorch 2.13.0)"."""
    from importlib.metadata import version

    ask = "from importlib.metadata import version; print(version('nnunetv2'), version('torch'))"
    done = subprocess.run([os.environ["SEGPLUG_PEER"], "-c", ask], check=True, capture_output=True, text=True)
    peer_version, peer_torch = done.stdout.split()
    ours = f"segplug {version('segplug')} (PyTorch {version('torch')})"
    return f"{ours} beside nnunetv2 {peer_version} (PyTorch {peer_torch})"
