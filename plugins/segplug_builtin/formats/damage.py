"""Whole files or an error: checksums and lengths, which the imaging libraries pass over.

SimpleITK reads a truncated .nii.gz as zeros, a .gipl as whatever is in memory, and compressed .mha data with a wrong
checksum as garbage, all without an error.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

from segplug.errors import DataError, SegplugError

GZIP = b"\x1f\x8b"
TIFF_TYPES = {
    1: "B", 2: "B", 3: "H", 4: "I", 5: "Q", 6: "B", 7: "B", 8: "H", 9: "I", 10: "Q", 11: "I", 12: "Q", 13: "I",
    16: "Q", 17: "Q", 18: "Q",
}  # fmt: skip
"""TIFF's field types by the size of one value; a rational is two numbers of 4 bytes."""
RESTORE = "Restore the file from its source"


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever a library raises into a `DataError` that names the file and what it should have been."""
    try:
        yield
    except (SegplugError, MemoryError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        raise DataError(f"{path}: cannot be read: {reason}; expected {expected}. {RESTORE}") from error


def read_whole(path: Path) -> bytes:
    """Content of a file; if it is gzip (by its first bytes, not its name), decompressed and checked to the last bit.

    Raises:
        DataError: the file is missing, empty, truncated or damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Check the disk and the file's rights") from None
    if not content:
        raise DataError(f"{path}: the file is empty (0 bytes). {RESTORE}")
    return gunzip(content, path) if content.startswith(GZIP) else content


def looks_like(content: bytes) -> str:
    """What a file seems to be, by how it begins; for messages."""
    known = {
        b"\x89PNG": "a PNG image", b"\xff\xd8": "a JPEG image", b"NRRD": "an NRRD file", b"PK": "a zip archive",
        b"\x89HDF": "an HDF5 file", b"II*\0": "a TIFF file", b"MM\0*": "a TIFF file", b"BM": "a BMP image",
        b"ObjectType": "a MetaImage file", b"%PDF": "a PDF", b"<": "an HTML or XML page", b"{": "a JSON file",
    }  # fmt: skip
    if content[128:132] == b"DICM":
        return "a DICOM file"
    return next((what for start, what in known.items() if content.startswith(start)), f"bytes {content[:4].hex(' ')}")


def gunzip(content: bytes, path: Path) -> bytes:
    """Decompress a gzip stream of any number of members; length and CRC of each are checked, zeros may follow.

    Raises:
        DataError: it is truncated or damaged.
    """
    members: list[bytes] = []
    rest = content
    while rest.startswith(GZIP):
        stream = zlib.decompressobj(wbits=31)
        try:
            members.append(stream.decompress(rest))
        except zlib.error as error:
            reason = "its checksum does not fit its content" if "incorrect data check" in str(error) else str(error)
            raise DataError(f"{path}: damaged: the gzip stream is corrupt: {reason}. {RESTORE}") from None
        if not stream.eof:
            got = sum(map(len, members))
            raise DataError(f"{path}: truncated: the gzip stream ends early, after {got} bytes of content. {RESTORE}")
        rest = stream.unused_data
    if rest.strip(b"\0"):
        raise DataError(f"{path}: damaged: {len(rest)} bytes stand behind the end of the gzip stream. {RESTORE}")
    return members[0] if len(members) == 1 else b"".join(members)


def check_itk_payload(path: Path) -> None:
    """Check voxels of NRRD, MetaImage and GIPL files where ITK does not: checksums, and GIPL's length.

    Raises:
        DataError: the file is missing, empty, truncated or damaged.
    """
    ending = path.name.lower().rpartition(".")[2]
    content = read_whole(path)
    if ending == "nrrd":
        _check_nrrd(content, path)
    elif ending == "mha":
        _check_mha(content, path)
    elif ending == "gipl":
        _check_gipl(content, path)


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


def _check_segments(content: bytes, start: int, entries: int, entry: str, path: Path) -> None:
    """Values of one page's tags, and its strips (tags 273, 279: offsets, lengths) or tiles (324, 325)."""
    found: dict[int, tuple[int, ...]] = {}
    for index in range(entries):
        at = start + index * struct.calcsize(entry)
        tag, kind, count, value = struct.unpack_from(entry, content, at)
        code = TIFF_TYPES.get(kind)
        if code is None or tag >= 32768:  # private tags may be of any make
            continue
        values = f"{entry[0]}{count}{code}"
        inline = struct.calcsize(values) <= struct.calcsize(entry[0] + entry[-1])
        place = at + struct.calcsize(entry[:-1]) if inline else value
        if place + struct.calcsize(values) > len(content):
            raise struct.error
        if tag in (273, 279, 324, 325):
            found[tag] = struct.unpack_from(values, content, place)
    for offsets, lengths in ((273, 279), (324, 325)):
        ends = [o + n for o, n in zip(found.get(offsets, ()), found.get(lengths, ()), strict=False)]
        if ends and max(ends) > len(content):
            raise DataError(f"{path}: truncated: {len(content)} bytes; its voxels reach to byte {max(ends)}. {RESTORE}")


def _check_nrrd(content: bytes, path: Path) -> None:
    end = re.search(rb"\r?\n\r?\n", content)
    header = content[: end.start()] if end else content
    if end is None or re.search(rb"(?im)^(data ?file|byte ?skip|line ?skip)\s*:", header):
        return  # voxels stand elsewhere; ITK checks their number
    encoding = re.search(rb"(?im)^encoding\s*:\s*(\w+)", header)
    if encoding and encoding[1].lower() in (b"gz", b"gzip"):
        payload = content[end.end() :]
        if not payload.startswith(GZIP):
            raise DataError(f"{path}: damaged: no gzip stream follows the header. {RESTORE}")
        gunzip(payload, path)


def _check_mha(content: bytes, path: Path) -> None:
    local = re.search(rb"(?m)^ElementDataFile\s*=\s*LOCAL\s*?\r?\n", content)
    if local is None or not re.search(rb"(?im)^CompressedData\s*=\s*True", content[: local.start()]):
        return  # uncompressed: ITK checks the length
    stream = zlib.decompressobj(wbits=47)  # zlib or gzip
    try:
        stream.decompress(content[local.end() :])
    except zlib.error as error:
        raise DataError(f"{path}: damaged: the compressed voxels are corrupt: {error}. {RESTORE}") from None
    if not stream.eof:
        raise DataError(f"{path}: truncated: the compressed voxels end early. {RESTORE}")


def _check_gipl(content: bytes, path: Path) -> None:
    """The header is 256 bytes, big-endian: four sizes, then the voxel type."""
    voxel_bytes = {1: 1, 7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
    if len(content) < 256:
        raise DataError(f"{path}: truncated: {len(content)} bytes, less than the header of a GIPL file. {RESTORE}")
    *sizes, kind = struct.unpack(">5H", content[:10])
    expected = 256 + prod(max(s, 1) for s in sizes) * voxel_bytes.get(kind, 0)
    if len(content) < expected:
        raise DataError(f"{path}: truncated: {len(content)} bytes; its header promises {expected}. {RESTORE}")
