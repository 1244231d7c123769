"""Where a Zarr hierarchy lies: a folder, a zip, or any store that fsspec knows, named by a URL."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from segplug.errors import DataError

if TYPE_CHECKING:
    from zarr.abc.store import Store

LARGEST_POINTER = 1 << 16
"""Bytes of a file that can be a pointer."""


@dataclass(frozen=True)
class Place:
    """One image, or one label map, in a hierarchy.

    Args:
        name: what errors call it.
        where: a local path, or a URL.
        level: of the pyramid, 0 is the finest.
        time: index along the axis t, if there is one.
        label: name of a label map in the image's group `labels`; None for the image.
        storage_options: for fsspec, such as {"anon": true} for a public bucket.
    """

    name: str
    where: Path | str
    level: int = 0
    time: int = 0
    label: str | None = None
    storage_options: Mapping[str, Any] | None = None


def find_place(path: Path) -> Place:
    """What a case's file names: itself, or, if it is a small JSON file, what is written in it.

    Such a pointer is `{"url": "s3://bucket/image.ome.zarr"}` and may have `level`, `time`, `label` and
    `storage_options` beside; a URL without a scheme is a path relative to the pointer.

    Raises:
        DataError: there is no such file, or it is neither folder nor zip nor pointer.
    """
    if path.is_dir() or (path.is_file() and zipfile.is_zipfile(path)):
        return Place(str(path), path)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_POINTER)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or folder; expected an OME-Zarr image. Restore it") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    known = {field.name for field in fields(Place)} - {"name", "where"}
    try:
        raw = json.loads(content)
        url = raw.pop("url")
        if not isinstance(url, str) or not set(raw) <= known:
            raise ValueError
        here = Place(str(path), url if "://" in url else path.parent / url, **raw)
        if not all(isinstance(n, int) and n >= 0 for n in (here.level, here.time)):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(
            f"{path}: neither an OME-Zarr folder nor a zip, nor a file that points to one; expected in such a file "
            f'{{"url": "..."}} and, if wanted, {", ".join(sorted(known))}. Restore or correct it'
        ) from None
    return here


def open_store(place: Place, *, mode: str = "r") -> Store:
    """The store, opened to read (`r`), to make anew (`w`), or to add to (`a`).

    Raises:
        DataError: fsspec has no such protocol, or what it needs for it is not installed.
    """
    from zarr.storage import FsspecStore, LocalStore, ZipStore

    where, read_only = place.where, mode == "r"
    if isinstance(where, str) and where.startswith("file://"):
        where = Path(url2pathname(urlparse(where).path))
    if isinstance(where, Path):
        if where.name.lower().endswith((".zip", ".ozx")) or (where.is_file() and zipfile.is_zipfile(where)):
            return ZipStore(where, mode="r" if read_only else "w" if mode == "w" else "a", read_only=read_only)
        return LocalStore(where, read_only=read_only)
    try:
        return FsspecStore.from_url(where, storage_options=dict(place.storage_options or {}), read_only=read_only)
    except (ImportError, ValueError, TypeError) as error:
        raise DataError(f"{place.name}: {where} cannot be opened: {error}") from None
