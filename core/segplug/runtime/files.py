"""Files that are there whole or not at all. Where a format is a folder (OME-Zarr, a DICOM series), so is that."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape as glob_escape
from pathlib import Path
from typing import Any
from uuid import uuid4

from segplug.errors import DataError

PARTIAL = ".partial-"
"""Stands at the front of the name of a file that is being written; nothing reads such files."""


@contextmanager
def replacing(path: Path, *, flushed: bool = True) -> Iterator[Path]:
    """Yield a path beside `path` (same file ending) to write to; when the block succeeds it is flushed and renamed.

    A folder may be made there too, and takes the place of a file or a folder; a file never that of a folder. If the
    block raises, what it wrote is removed and `path` stays as it was.

    Args:
        flushed: wait until it is on the disk. Without, a power failure may cut the file short: only for what can be
            made again and tells whether it is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{uuid4().hex[:12]}-{path.name}")
    try:
        yield partial
        if flushed:
            flush(partial)
        if partial.is_dir():  # does not replace anything in one step
            remove(path)
        os.replace(partial, path)
    except BaseException:
        remove(partial)
        raise


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing if there is none. Of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        # out of the way first: a removal that is interrupted leaves nothing that looks whole
        if not path.name.startswith(PARTIAL):
            path = path.rename(path.with_name(f"{PARTIAL}{uuid4().hex[:12]}-{path.name}"))
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, with the times of change; the target is not there yet."""
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
        shutil.copystat(source, target)


def flush(path: Path) -> None:
    """Wait until a file, or every file of a folder, is on the disk."""
    for member in _members(path):
        with member.open("rb+") as file:
            os.fsync(file.fileno())


def _members(path: Path) -> list[Path]:
    """The file itself, or all files of a folder, sorted."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


@dataclass(frozen=True)
class FileState:
    """What tells without reading whether a file has changed.

    Args:
        size: bytes; of a folder, those of all its files.
        mtime_ns: time of the last change; of a folder, the latest of it and of all that is in it.
    """

    size: int
    mtime_ns: int


def file_state(path: Path) -> FileState:
    """Size and time of change.

    Raises:
        OSError: it is not there.
    """
    status = path.stat()
    if not path.is_dir():
        return FileState(status.st_size, status.st_mtime_ns)
    found = [p.stat() for p in path.rglob("*")]
    size = sum(s.st_size for s in found if not stat.S_ISDIR(s.st_mode))
    return FileState(size, max([status.st_mtime_ns, *(s.st_mtime_ns for s in found)]))


def remove_partials(path: Path) -> None:
    """Remove what interrupted writes of `path` left beside it. Only for files that nobody else writes at the time."""
    for partial in path.parent.glob(f"{PARTIAL}{'[0-9a-f]' * 12}-{glob_escape(path.name)}"):
        remove(partial)


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
    """SHA-256 of a file's content, as hex; of a folder, that of its files' names and contents."""
    if path.is_dir():
        digest = hashlib.sha256()
        for member in _members(path):
            digest.update(f"{member.relative_to(path).as_posix()}\0{file_hash(member)}\n".encode())
        return digest.hexdigest()
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
