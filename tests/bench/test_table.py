"""The table of docs/benchmarks.md."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def entry(name: str, **row: Any) -> dict[str, Any]:
    complete = {
        "what": "resampling",
        "unit": "s",
        "segplug": 0.04231,
        "nnunetv2": 2.3251,
        "ratio": 54.953,
        "aim": "≥ 20x",
        "reached": True,
        "repetitions": 5,
        "remark": "small",
        **row,
    }
    machine = {"cpu": "A CPU", "cores": 2, "memory_gb": 24.0, "system": "Linux", "gpu": []}
    versions = {"python": "3.11.7", "segplug": "0.1.0", "nnunetv2": "2.8.1", "torch": "2.13.0"}
    figures = {"rows": [complete], "runs": {"large": [1, 2, 3]}, "quick": False}
    return {"name": name, "figures": figures, "machine": machine, "versions": versions, "time": "2026-01-01T00:00:00Z"}


@pytest.fixture
def page(table: ModuleType, tmp_path: Path) -> Path:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n")
    return page


def test_rows_as_people_read_them(table: ModuleType, page: Path) -> None:
    results = page.with_name("benchmarks.json")
    table.update(entry("resampling"), results, page)
    table.update(entry("startup", what="help", nnunetv2=None, ratio=None, reached=False, repetitions=1), results, page)
    lines = page.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert "old" not in lines
    rows = [line for line in lines if line.startswith("| ")]
    assert rows == [
        "| what | segplug | nnunetv2 | ratio | to reach | reached |",
        # in the table's order, not in that of the runs
        "| help (small, one run) | 0.0423 s |  |  | ≥ 20x | **no** |",
        "| resampling (small, median of 5) | 0.0423 s | 2.33 s | 55x | ≥ 20x | yes |",
    ]
    told = "A CPU, 2 cores, 24 GB; segplug 0.1.0, nnunetv2 2.8.1, torch 2.13.0, python 3.11.7"
    assert f"- startup, resampling: {told}" in lines


@pytest.mark.parametrize(("reached", "told"), [(False, "failed"), (None, "not measured")])
def test_rows_without_a_figure(table: ModuleType, reached: bool | None, told: str) -> None:
    [row] = entry("x", segplug=None, nnunetv2=None, ratio=None, reached=reached, repetitions=0)["figures"]["rows"]
    assert table.cells(row)[:3] == ("resampling (small)", told, "")


def test_a_run_replaces_its_own_family_alone(table: ModuleType, page: Path) -> None:
    results = page.with_name("benchmarks.json")
    table.update(entry("resampling"), results, page)
    table.update(entry("startup"), results, page)
    table.update(entry("resampling", what="anew"), results, page)
    known = json.loads(results.read_text())
    assert list(known) == ["startup", "resampling"]
    assert [row["what"] for row in known["resampling"]["rows"]] == ["anew"]
    assert "runs" not in results.read_text()  # they stay in bench-results/


@pytest.mark.parametrize(
    ("value", "told"), [(0.0001234, "0.000123"), (0.5, "0.5"), (7.0, "7"), (99.94, "99.9"), (1634.2, "1634"), (0, "0")]
)
def test_three_digits_without_exponents(table: ModuleType, value: float, told: str) -> None:
    assert table._rounded(value) == told


def test_the_page_is_made_from_the_results(table: ModuleType, tmp_path: Path) -> None:
    copy = tmp_path / "benchmarks.md"
    copy.write_text((DOCS / "benchmarks.md").read_text(encoding="utf-8"), encoding="utf-8")
    table.write_page(DOCS / "benchmarks.json", copy)
    assert copy.read_text(encoding="utf-8") == (DOCS / "benchmarks.md").read_text(encoding="utf-8"), (
        "docs/benchmarks.md is not what docs/benchmarks.json says: run python bench/table.py"
    )
