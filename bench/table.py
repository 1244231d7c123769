"""The table of docs/benchmarks.md: made from docs/benchmarks.json, where each benchmark leaves its last whole run.

python bench/table.py           writes the page anew from the file
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS, PAGE = DOCS / "benchmarks.json", DOCS / "benchmarks.md"
BEGIN, END = "<!-- the table: written by bench/table.py -->", "<!-- end of the table -->"
HEADING = ("what", "segplug", "nnunetv2", "ratio", "to reach", "reached")

FAMILIES = (
    "startup",
    "preprocessing",
    "resampling",
    "export",
    "loading",
    "training_step",
    "prediction",
    "large_images",
    "evaluation",
    "epoch_overhead",
)
"""Benchmarks of the table, in its order."""

Entry = Mapping[str, Any]


def update(entry: Entry, results: Path = RESULTS, page: Path = PAGE) -> None:
    """Take a benchmark's run into the results, and write the page."""
    known = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    # single runs stay in bench-results/: here they would be rewritten with every run
    kept = {key: value for key, value in entry.items() if key != "figures"}
    known[entry["name"]] = {**kept, "rows": entry["figures"]["rows"]}
    ordered = {name: known[name] for name in FAMILIES if name in known}
    results.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_page(results, page)


def write_page(results: Path = RESULTS, page: Path = PAGE) -> None:
    """Put the table in its place on the page; the rest of it is written by hand."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    known = json.loads(results.read_text(encoding="utf-8"))
    page.write_text(f"{before}{BEGIN}\n\n{chr(10).join(as_markdown(known))}\n\n{END}{after}", encoding="utf-8")


def as_markdown(results: Mapping[str, Entry]) -> Iterator[str]:
    """The table, and what it was measured on."""
    yield f"| {' | '.join(HEADING)} |"
    yield "|---|--:|--:|--:|---|---|"
    for name in FAMILIES:
        for row in results.get(name, {}).get("rows", ()):
            yield f"| {' | '.join(cells(row))} |"
    machines: dict[str, list[str]] = {}
    for name in FAMILIES:
        if name in results:
            machines.setdefault(_measured_on(results[name]), []).append(name)
    yield ""
    for told, names in machines.items():
        yield f"- {', '.join(names)}: {told}"


def as_text(rows: Iterable[Entry]) -> list[str]:
    """The same for a terminal."""
    lines = [HEADING, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADING))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def cells(row: Entry) -> tuple[str, ...]:
    """A row's cells as text, by `HEADING`."""
    remark = ", ".join(filter(None, (row["remark"], _repeated(row["repetitions"]))))
    nothing = "failed" if row["reached"] is False else "not measured"
    return (
        f"{row['what']} ({remark})",
        nothing if row["segplug"] is None else f"{_rounded(row['segplug'])} {row['unit']}",
        "" if row["nnunetv2"] is None else f"{_rounded(row['nnunetv2'])} {row['unit']}",
        "" if row["ratio"] is None else f"{_rounded(row['ratio'])}x",
        row["aim"],
        {True: "yes", False: "**no**", None: ""}[row["reached"]],
    )


def _repeated(repetitions: int) -> str:
    return {0: "", 1: "one run"}.get(repetitions, f"median of {repetitions}")


def _rounded(value: float) -> str:
    """Three digits, but no exponent and no lost thousands."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _measured_on(entry: Entry) -> str:
    machine, versions = entry["machine"], entry["versions"]
    told = ", ".join(f"{name} {versions[name]}" for name in _packages(versions))
    gpus = ", ".join(machine["gpu"])
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:g} GB{gpus and f', {gpus}'}; {told}"


def _packages(versions: Mapping[str, str]) -> Sequence[str]:
    return [name for name in ("segplug", "nnunetv2", "torch", "numpy", "python") if name in versions]


if __name__ == "__main__":
    write_page()
