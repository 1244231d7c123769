"""What is wrong with data, one finding at a time, so that all of them can be told at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segplug.errors import DataError


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set.

    Args:
        kind: which check found it, a short fixed phrase such as `missing label`; groups findings.
        case: name of the case; empty if the finding is about the whole data set.
        file: the file it is about, if it is about one.
        found, expected: what there is, and what there should be.
        remedy: what to do.
        severity: an `error` makes training wrong or impossible; a `warning` is worth a look and stops nothing.
    """

    kind: str
    case: str
    file: Path | None
    found: str
    expected: str
    remedy: str
    severity: Literal["error", "warning"] = "error"

    @property
    def is_error(self) -> bool:
        return self.severity == "error"

    def __str__(self) -> str:
        """All of it in one line, nothing shortened."""
        file = "" if self.file is None else str(self.file)
        where = ": ".join(part for part in (self.case, file, self.kind) if part)
        text = f"{self.severity}: {where}: found {self.found}; expected {self.expected}. {self.remedy}"
        return text.replace("\n", "\\n")


def raise_errors(findings: Iterable[Finding], subject: str) -> None:
    """Raise one `DataError` that lists every error among the findings; return if there is none."""
    errors = [f for f in findings if f.is_error]
    if not errors:
        return
    if len(errors) == 1:
        raise DataError(f"{subject}: {str(errors[0]).removeprefix('error: ')}")
    lines = "\n".join(f"  {str(e).removeprefix('error: ')}" for e in errors)
    raise DataError(f"{subject}: {len(errors)} problems:\n{lines}")
