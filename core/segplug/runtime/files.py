"""Files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape as glob_escape
from pathlib import Path
from typing import Any
from uuid import uuid4

from segplug.errors import DataError

PARTIAL = ".partial-"
"""Stands at the front of the name of a file that is being written; nothing reads such files."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` (same file ending) to write to; when the block succeeds it is flushed and renamed.

    If the block raises, what it wrote is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{uuid4().hex[:12]}-{path.name}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def remove_partials(path: Path) -> None:
    """Remove what interrupted writes of `path` left beside it. Only for files that nobody else writes at the time."""
    for partial in path.parent.glob(f"{PARTIAL}{'[0-9a-f]' * 12}-{glob_escape(path.name)}"):
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, sort_keys: bool = False) -> None:
    """Write JSON as nnU-Net does (indent 4), whole or not at all. NumPy scalars and arrays become plain values."""
    write_text(path, json.dumps(value, indent=4, sort_keys=sort_keys, default=_plain))


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or is nested too deeply, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply to be read") from None


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        DataError: the file is missing or is not JSON; the message names it.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except ValueError as error:
        raise DataError(
            f"{path}: not a JSON file: {error}. Restore it, or make it anew with the command that wrote it"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON value, as hex; key order does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=_plain).encode()).hexdigest()


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN: None stands for it where other programs must read the file."""
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    for convert in ("tolist", "item"):  # NumPy arrays and scalars
        if hasattr(value, convert):
            return getattr(value, convert)()
    if isinstance(value, (Path, set, frozenset)):
        return str(value) if isinstance(value, Path) else sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
