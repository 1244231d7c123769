"""Whole files or an error: checksums and lengths, which the imaging libraries pass over.

SimpleITK reads a truncated .nii.gz as zeros, a .gipl as whatever is in memory, and compressed .mha data with a wrong
checksum as garbage, all without an error.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

from segplug.errors import DataError, SegplugError
from segplug_builtin.formats import deflate

GZIP = b"\x1f\x8b"
RESTORE = "Restore the file from its source"
DEFLATE_RATIO = 1032
"""zlib's highest compression (its technical notes): no gzip or zlib stream unpacks to more bytes per byte."""


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
        DataError: the file is missing, empty, truncated or damaged, or its name is no UTF-8 (ITK aborts on it).
    """
    try:
        str(path).encode()
        content = path.read_bytes()
    except UnicodeEncodeError:
        raise DataError(f"{str(path)!a}: a file name that is not UTF-8; expected one that is. Rename it") from None
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
    try:
        return _members(content, path, fast=True)
    except deflate.ERRORS:
        pass  # zlib says better what is wrong
    try:
        return _members(content, path, fast=False)
    except deflate.ERRORS as error:
        reason = "its checksum does not fit its content" if "incorrect data check" in str(error) else str(error)
        raise DataError(f"{path}: damaged: the gzip stream is corrupt: {reason}. {RESTORE}") from None


def _members(content: bytes, path: Path, *, fast: bool) -> bytes:
    members: list[bytes] = []
    rest = content
    while rest.startswith(GZIP):
        stream = deflate.decompressor(fast=fast)
        members.append(stream.decompress(rest))
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


def check_promise(promised: int, available: int, path: Path) -> None:
    """Refuse a header that asks for more memory than the voxels in the file can fill.

    Args:
        promised: bytes of all voxels by the header.
        available: bytes that the file can hold at most, after decompression.

    Raises:
        DataError: there cannot be so many.
    """
    if promised > available:
        raise DataError(
            f"{path}: damaged: its header promises {promised} bytes of voxels; the file can hold {available} at most. "
            f"{RESTORE}"
        )


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
    stream = deflate.decompressor()
    try:
        stream.decompress(content[local.end() :])
    except deflate.ERRORS as error:
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
