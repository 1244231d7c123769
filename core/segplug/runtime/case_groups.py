"""Cases that belong together, as several scans of one patient: parts of a split must not share them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from segplug.errors import DataError, UsageError
from segplug.runtime.wording import listed

TABLES = {".csv": ",", ".tsv": "\t"}
"""Separator by file ending."""

CASE_COLUMNS = ("case", "participant_id")
"""Headings under which a table may name its cases; else its first column does."""


def group_cases(cases: Iterable[str], by: str) -> dict[str, str]:
    """The group of each case, in the order of `cases`.

    Args:
        by: a regular expression that is searched in each case's name: its group named `group`, its first group, or all
            that it matches names the group (`patient\\d+`, `(.+)_frame`). Or `FILE:COLUMN`, a column of a .csv or .tsv
            file with one row a case (columns `case` or `participant_id`, or the first one, name the cases).

    Raises:
        UsageError: no such file or column, or no regular expression.
        DataError: cases without a group; all are listed.
    """
    file, colon, column = by.rpartition(":")
    if colon and Path(file).suffix.lower() in TABLES:
        return _by_table(list(cases), Path(file).expanduser(), column)
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise UsageError(f"--group {by}: no regular expression: {error}. A table is named as FILE.csv:COLUMN") from None
    found, without = {}, []
    for case in cases:
        match = pattern.search(case)
        name = _named(match) if match else None
        if name:
            found[case] = name
        else:
            without.append(case)
    if without:
        raise DataError(
            f"--group {by}: found nothing of it in the names of {len(without)} cases: {listed(without)}; expected a "
            "group for every case. Correct the expression, or name a table as FILE.csv:COLUMN"
        )
    return found


def _named(match: re.Match[str]) -> str | None:
    if "group" in match.re.groupindex:
        return match["group"]
    return match[1] if match.re.groups else match[0]


def _by_table(cases: list[str], file: Path, column: str) -> dict[str, str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = list(csv.DictReader(opened, delimiter=TABLES[file.suffix.lower()]))
    except FileNotFoundError:
        raise UsageError(f"--group {file}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--group {file}: cannot be read as a table: {error}. Save it as UTF-8 text") from None
    columns = list(rows[0]) if rows else []
    if column not in columns:
        raise UsageError(f"--group {file}: no column {column!r}. There are: {', '.join(map(str, columns)) or 'none'}")
    key = next((name for name in CASE_COLUMNS if name in columns), columns[0])
    groups: dict[str, str] = {}
    for row in rows:
        case, group = (row[key] or "").strip(), (row[column] or "").strip()
        if groups.setdefault(case, group) != group:
            raise DataError(
                f"--group {file}: case {case}: found {groups[case]!r} and {group!r} under {column}; expected one group "
                "a case. Correct the table"
            )
    without = [case for case in cases if not groups.get(case)]
    if without:
        raise DataError(
            f"--group {file}: {len(without)} cases without a row, or with nothing under {column}: {listed(without)}; "
            f"expected one row a case, named under {key}. Complete the table"
        )
    return {case: groups[case] for case in cases}
