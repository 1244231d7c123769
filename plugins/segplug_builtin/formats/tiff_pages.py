"""The pages of a TIFF file: whole, and no larger than what the file holds; tifffile looks at neither."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug_builtin.formats.damage import DEFLATE_RATIO, RESTORE, check_promise, looks_like

FIELD_TYPES = {
    1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u8", 6: "u1", 7: "u1", 8: "u2", 9: "u4", 10: "u8", 11: "u4", 12: "u8",
    13: "u4", 16: "u8", 17: "u8", 18: "u8",
}  # fmt: skip
"""TIFF's field types as unsigned numbers of their size; a rational is two numbers of 4 bytes."""

RATIOS = {1: 1, 5: 2731, 8: DEFLATE_RATIO, 32773: 64, 32946: DEFLATE_RATIO}
"""By TIFF's number of the compression, bytes that one byte can stand for: none; LZW (12 bits for 4096 bytes at most);
zlib; PackBits (2 bytes for 128)."""

UNKNOWN_RATIO = 2**16
"""Of any other compression, generously."""


def check_tiff(content: bytes, path: Path) -> None:
    """Follow the chain of pages to its end; every page, and the voxels it points to, must lie within the file.

    tifffile leaves out pages that do not.

    Raises:
        DataError: it is no TIFF, truncated, or its chain of pages is damaged.
    """
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None or len(content) < 16 or content[2:4] not in (struct.pack(f"{order}H", v) for v in (42, 43)):
        raise DataError(f"{path}: no TIFF header but {looks_like(content)}; expected a TIFF file. {RESTORE}")
    big = content[2:4] == struct.pack(f"{order}H", 43)
    word, small, entry_bytes = ("Q", "Q", 20) if big else ("I", "H", 12)
    position = struct.unpack_from(f"{order}{word}", content, 8 if big else 4)[0]
    seen: set[int] = set()
    try:
        while position:
            if position in seen:
                raise DataError(f"{path}: damaged: its chain of pages leads back to byte {position}. {RESTORE}")
            seen.add(position)
            (entries,) = struct.unpack_from(f"{order}{small}", content, position)
            start = position + struct.calcsize(small)
            _check_segments(content, start, entries, f"{order}HH{word}{word}", path)
            (position,) = struct.unpack_from(f"{order}{word}", content, start + entries * entry_bytes)
    except struct.error:
        raise DataError(f"{path}: truncated: {len(content)} bytes; a page is said to lie behind. {RESTORE}") from None
    if not seen:
        raise DataError(f"{path}: damaged: a TIFF file without pages. {RESTORE}")


def check_size(series: Any, file_bytes: int, path: Path) -> None:
    """Refuse a tifffile series whose array would be larger than what the file's bytes can stand for.

    Raises:
        DataError: its pages promise more voxels than there are.
    """
    page = series.keyframe
    # voxels of fewer bits than a byte are unpacked to one byte each
    widened = series.dtype.itemsize * 8 / max(1, page.bitspersample)
    ratio = RATIOS.get(int(page.compression), UNKNOWN_RATIO)
    check_promise(
        int(np.prod([int(n) for n in series.shape], dtype=object)) * series.dtype.itemsize,
        int(file_bytes * ratio * widened),
        path,
    )


def _check_segments(content: bytes, start: int, entries: int, entry: str, path: Path) -> None:
    """Values of one page's tags, and its strips (tags 273, 279: offsets, lengths) or tiles (324, 325)."""
    found: dict[int, NDArray[Any]] = {}
    for index in range(entries):
        at = start + index * struct.calcsize(entry)
        tag, kind, count, value = struct.unpack_from(entry, content, at)
        code = FIELD_TYPES.get(kind)
        if code is None or tag >= 32768:  # private tags may be of any make
            continue
        values = np.dtype(f"{entry[0]}{code}")
        inline = count * values.itemsize <= struct.calcsize(entry[0] + entry[-1])
        place = at + struct.calcsize(entry[:-1]) if inline else value
        if place + count * values.itemsize > len(content):
            raise struct.error
        if tag in (273, 279, 324, 325):
            found[tag] = np.frombuffer(content, values, count, place)
    for offsets, lengths in ((273, 279), (324, 325)):
        both = min(len(found.get(offsets, ())), len(found.get(lengths, ())))
        if not both:
            continue
        first, size = (found[tag][:both].astype(np.float64) for tag in (offsets, lengths))  # no overflow
        end = int((first + size).max())
        if end > len(content):
            raise DataError(f"{path}: truncated: {len(content)} bytes; its voxels reach to byte {end}. {RESTORE}")
