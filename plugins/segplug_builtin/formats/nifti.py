"""NIfTI files from and to bytes, without a library in between: one decompression, and headers kept bit by bit."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug_builtin.formats import deflate
from segplug_builtin.formats.damage import DEFLATE_RATIO, GZIP, RESTORE, looks_like, read_whole

HEADER = "nifti_header"
"""Key under `Geometry.extra`: the header as hexadecimal text, for writing label maps with the very same geometry."""

SCALAR_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
"""NIfTI datatype codes of plain numbers."""


_UNREADABLE: tuple[type[Exception], ...] = (OSError, ValueError, *deflate.ERRORS)

BYTES = np.dtype(np.uint8)

_PIECE = 1 << 18
"""Bytes that a file goes through memory by: they stay in the cache until they are voxels."""

_SQUARE, _SIMILAR = 1e-5, 30
"""Cosine of an angle that is no doubt a right one, and how many times larger than another a voxel size may be then."""

SIZE_TOLERANCE = 1e-3
"""Relative difference of voxel sizes that single-precision headers do not explain."""


@dataclass(frozen=True)
class NiftiContent:
    """A whole NIfTI-1 file.

    Args:
        header: its first 348 bytes.
        shape: in array order, slowest axis first; (z, y, x) for a volume.
        raw: voxels as stored; None if they are no plain numbers (RGB, complex) or if it is not clear where they begin.
        slope, intercept: stored value -> value, as the header has them.
        kind: of the numbers as stored; of bytes if they are none.
        start: of the voxels, in bytes.
    """

    header: bytes
    shape: tuple[int, ...]
    raw: NDArray[Any] | None
    slope: float
    intercept: float
    kind: np.dtype[Any] = BYTES
    start: int = 0


def is_nifti(path: Path) -> bool:
    """By its name."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_scaled(path: Path) -> tuple[NiftiContent, NDArray[np.float32]] | None:
    """Read a file completely, checksum included: header, and voxel values as `scaled_like_itk` gives them.

    An ordinary file goes through memory piece by piece: it takes little more than the values. The content comes back
    without `raw` then. None as for `read_nifti`, and where that has no `raw`.

    Raises:
        DataError: as `read_nifti`.
    """
    found = _streamed(path)
    if found is not None:
        return found
    content = read_nifti(path)  # which says what is wrong, or knows what to do with it
    return None if content is None or content.raw is None else (content, scaled_like_itk(content))


def read_layout(path: Path) -> NiftiContent | None:
    """The header of an ordinary file; no more of it is read. None where it is not ordinary, or is damaged."""
    try:
        with path.open("rb") as file:
            for start in _pieces(file):
                return _header_of(start, path, path.stat().st_size)
    except _UNREADABLE:
        pass
    return None


def _streamed(path: Path) -> tuple[NiftiContent, NDArray[np.float32]] | None:
    """None for anything but a whole file of one gzip member, or none, with plain numbers."""
    try:
        with path.open("rb") as file:
            pieces = _pieces(file)
            start = next(pieces, b"")
            content = _header_of(start, path, path.stat().st_size)
            if content is None:
                return None
            values = np.empty(content.shape, np.float32)
            flat, kind, filled = values.reshape(-1), content.kind, 0
            rest = start[content.start :]
            scale = _scaling(content)
            while True:
                count = min(len(rest) // kind.itemsize, flat.size - filled)
                stored = np.frombuffer(rest, kind, count)
                flat[filled : filled + count] = stored if scale is None else _scaled(stored, *scale)
                filled += count
                left = rest[count * kind.itemsize :] if filled < flat.size else b""
                piece = next(pieces, None)
                if piece is None:
                    return (content, values) if filled == flat.size else None
                rest = left + piece if left else piece
    except _UNREADABLE:
        return None


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """Content of a file, decompressed if it is gzip, the first piece large enough for any header.

    Raises:
        ValueError: there is more than one gzip member, or less.
    """
    first = file.read(_PIECE)
    if not first.startswith(GZIP):
        while first:
            yield first
            first = file.read(_PIECE)
        return
    stream = deflate.decompressor()
    packed = first
    while not stream.eof:
        piece = stream.decompress(packed, _PIECE)
        if piece:
            yield piece
        packed = stream.unconsumed_tail or (b"" if stream.eof else file.read(_PIECE))
        if not packed and not piece and not stream.eof:
            raise ValueError("truncated")
    if (stream.unused_data + file.read()).strip(b"\0"):
        raise ValueError("several members")


def _header_of(start: bytes, path: Path, file_bytes: int) -> NiftiContent | None:
    """What the first bytes of a file say, if it is ordinary: NIfTI-1, plain numbers, no more than the file can hold."""
    try:
        layout = parse_layout(start, path)
    except DataError:
        return None
    kind = None if layout is None else SCALAR_TYPES.get(layout.datatype)
    if layout is None or kind is None or len(layout.header) != 348 or not 352 <= layout.start <= len(start):
        return None
    stored = np.dtype(f"{layout.order}{kind}")
    if math.prod(layout.shape) * stored.itemsize > file_bytes * DEFLATE_RATIO:
        return None
    slope, intercept = struct.unpack_from(f"{layout.order}2f", start, 112)
    return NiftiContent(layout.header, layout.shape, None, slope, intercept, stored, layout.start)


def read_nifti(path: Path) -> NiftiContent | None:
    """Read a file completely, checksum included, and take it apart; None where it is NIfTI but not single-file NIfTI-1.

    Raises:
        DataError: it is missing, empty, truncated, damaged or no NIfTI at all.
    """
    content = read_whole(path)
    layout = check_nifti(content, path)
    if layout is None or len(layout.header) != 348:
        return None
    kind, start, shape = SCALAR_TYPES.get(layout.datatype), layout.start, layout.shape
    slope, intercept = struct.unpack_from(f"{layout.order}2f", content, 112)
    if kind is None or start < 352:  # else libraries differ in where voxels begin
        return NiftiContent(layout.header, shape, None, slope, intercept)
    stored = np.dtype(f"{layout.order}{kind}")
    raw = np.frombuffer(content, stored, math.prod(shape), start).reshape(shape)
    return NiftiContent(layout.header, shape, raw, slope, intercept, stored, start)


@dataclass(frozen=True)
class Layout:
    """Where a NIfTI file has its voxels: byte order, header, shape (slowest axis first), type code, first byte, end."""

    order: str
    header: bytes
    shape: tuple[int, ...]
    datatype: int
    start: int
    end: int


def check_nifti(content: bytes, path: Path) -> Layout | None:
    """Check that the header makes sense and that all the voxels it promises are there; None for a file of two parts.

    Args:
        content: of the file, decompressed.

    Raises:
        DataError: it is no NIfTI, or truncated, or its header is damaged.
    """
    layout = parse_layout(content, path)
    if layout is not None and len(content) < layout.end:
        told = f"{len(content)} bytes of content; its header promises {layout.end}"
        raise DataError(f"{path}: truncated: {told}. {RESTORE}")
    return layout


def parse_layout(content: bytes, path: Path) -> Layout | None:
    """What a header says; `content` may end behind it. Otherwise as `check_nifti`."""
    sizes = {struct.pack(f"{order}i", size): (order, size) for order in "<>" for size in (348, 540)}
    if content[:4] not in sizes:
        raise DataError(f"{path}: no NIfTI header but {looks_like(content)}; expected a NIfTI file. {RESTORE}")
    order, size = sizes[content[:4]]
    if len(content) < size:
        raise DataError(f"{path}: truncated: {len(content)} bytes of content; its header takes {size}. {RESTORE}")
    if size == 348:
        if content[344:348] != b"n+1\0":
            return None
        count, *dims = struct.unpack_from(f"{order}8h", content, 40)
        datatype, bits = struct.unpack_from(f"{order}2h", content, 70)
        (offset,) = struct.unpack_from(f"{order}f", content, 108)
    else:
        if content[4:8] != b"n+2\0":
            return None
        datatype, bits = struct.unpack_from(f"{order}2h", content, 12)
        count, *dims = struct.unpack_from(f"{order}8q", content, 16)
        (offset,) = struct.unpack_from(f"{order}q", content, 168)
    if not 1 <= count <= 7 or any(d < 1 for d in dims[:count]) or not 0 <= offset < 2**31:
        raise DataError(f"{path}: damaged NIfTI header: dimensions {[count, *dims]}, data at byte {offset}. {RESTORE}")
    shape = tuple(reversed(dims[:count]))
    kind = SCALAR_TYPES.get(datatype)
    voxel_bytes = bits // 8 if kind is None else np.dtype(kind).itemsize
    start = max(int(offset), size)
    return Layout(order, content[:size], shape, datatype, start, start + math.prod(shape) * voxel_bytes)


def placement_of(header: bytes) -> bytes:
    """A NIfTI-1 header of plain numbers as it would be for two bytes along each axis that has more than one voxel, and
    without what says nothing of where voxels are: images of one study and their label maps often have the same.
    """
    order = "<" if header[:4] == struct.pack("<i", 348) else ">"
    kept = bytearray(header)
    count, *dims = struct.unpack_from(f"{order}8h", header, 40)
    struct.pack_into(f"{order}8h", kept, 40, count, *(min(size, 2) for size in dims))
    struct.pack_into(f"{order}2h", kept, 70, 2, 8)  # datatype and bits of uint8
    for start, stop in ((4, 40), (112, 120), (124, 136), (140, 252), (328, 344)):  # old, scale, range, texts, name
        kept[start:stop] = bytes(stop - start)
    return bytes(kept)


def scaled_like_itk(content: NiftiContent) -> NDArray[np.float32]:
    """Voxel values as float32, with ITK's arithmetic where the header scales them.

    ITK casts integers to float32, multiplies and adds in float64, and rounds to float32 (float64 stays so throughout).
    """
    assert content.raw is not None
    scale = _scaling(content)
    if scale is None:
        return content.raw.astype(np.float32)
    result = np.empty(content.raw.shape, np.float32)
    for index in range(len(result)):  # slice by slice: float64 copies of the whole would cost twice the result
        result[index] = _scaled(content.raw[index], *scale)
    return result


def _scaling(content: NiftiContent) -> tuple[float, float] | None:
    """Slope and intercept, None where values are what is stored."""
    tiny = float(np.finfo(np.float64).eps)
    slope = content.slope if np.isfinite(content.slope) and abs(content.slope) > tiny else 1.0
    intercept = content.intercept if np.isfinite(content.intercept) else 0.0
    return None if abs(slope - 1) <= tiny and abs(intercept) <= tiny else (slope, intercept)


def _scaled(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float64]:
    double = stored.dtype.itemsize == 8 and stored.dtype.kind == "f"
    values = stored if double else stored.astype(np.float32)
    return values.astype(np.float64) * slope + intercept


def plainly_rectangular(header: bytes) -> bool:
    """Whether a NIfTI-1 header says beyond doubt that axes are at right angles; False also where it is hard to tell.

    Voxel sizes that differ very much are hard to tell: ITK's own tolerance is one of the whole matrix.
    """
    if len(header) != 348:
        return False
    order = "<" if header[:4] == struct.pack("<i", 348) else ">"
    sizes = struct.unpack_from(f"{order}3f", header, 80)
    codes = struct.unpack_from(f"{order}2h", header, 252)
    turn = struct.unpack_from(f"{order}6f", header, 256)
    rows = struct.unpack_from(f"{order}12f", header, 280)
    if not all(map(math.isfinite, (*sizes, *turn, *rows))) or min(sizes) <= 0:
        return False
    columns = [rows[axis::4] for axis in range(3)] if codes[1] > 0 else []
    lengths = [math.hypot(*column) for column in columns]
    if min(*sizes, *lengths) * _SIMILAR < max(*sizes, *lengths):
        return False
    return all(
        abs(sum(a * b for a, b in zip(columns[i], columns[j], strict=True))) <= _SQUARE * lengths[i] * lengths[j]
        for i, j in combinations(range(len(columns)), 2)
    )


def spacing_doubts(header: bytes) -> list[list[str]]:
    """Where a NIfTI-1 header gives two voxel sizes: that of `pixdim`, which counts, and that of its `sform` matrix.

    Returns:
        Entries for `Geometry.extra[DOUBTS]`; empty if they agree or there is no such matrix.
    """
    if len(header) != 348:
        return []
    order = "<" if header[:4] == struct.pack("<i", 348) else ">"
    (axes,) = struct.unpack_from(f"{order}h", header, 40)
    (code,) = struct.unpack_from(f"{order}h", header, 254)
    if code <= 0 or axes < 3:
        return []
    sizes = [abs(size) for size in struct.unpack_from(f"{order}3f", header, 80)]
    rows = struct.unpack_from(f"{order}12f", header, 280)
    lengths = [math.hypot(*rows[axis::4]) for axis in range(3)]
    if all(abs(a - b) <= SIZE_TOLERANCE * abs(b) or a == b for a, b in zip(sizes, lengths, strict=True)):
        return []
    shown = ["(" + ", ".join(f"{v:.6g}" for v in values) + ")" for values in (sizes, lengths)]
    remedy = "Correct the header: set pixdim, or the matrix, to the true voxel size"
    return [
        ["spacing contradicts", f"voxel size {shown[0]} by pixdim (x, y, z)", f"{shown[1]}, as the sform says", remedy]
    ]


def label_file(labels: NDArray[Any], extra: Mapping[str, Any]) -> bytes | None:
    """Content of a NIfTI file with these labels (z, y, x) and the header that the image came with; None without one.

    Geometry, units and transformation codes stay as they are, bit by bit; what describes the image's voxels or its
    patient is cleared.

    Raises:
        DataError: the labels have another shape than the image had.
    """
    if HEADER not in extra:
        return None
    import nibabel

    block = bytes.fromhex(extra[HEADER])
    kind = nibabel.Nifti2Header if len(block) == 540 else nibabel.Nifti1Header
    header = kind(block, endianness=None, check=False)
    axes = min(max(int(header["dim"][0]), 2), 3)
    shape, expected = labels.shape[-axes:], tuple(int(n) for n in header["dim"][axes:0:-1])
    if shape != expected:
        raise DataError(f"a label map of shape {shape} for an image of shape {expected}; expected the image's shape")
    pixdim = header["pixdim"].copy()
    header.set_data_dtype(labels.dtype)
    header.set_data_shape(tuple(reversed(shape)))
    header["pixdim"] = np.where(np.arange(8) <= max(axes, 3), pixdim, 1)
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = 1, 0, len(block) + 4
    for name in ("cal_max", "cal_min", "intent_code", "intent_p1", "intent_p2", "intent_p3", "slice_code"):
        header[name] = 0
    for name in ("descrip", "aux_file", "intent_name"):
        header[name] = b""
    for name in {"db_name", "data_type"} & {*header.keys()}:
        header[name] = b""
    header["magic"] = b"n+1" if len(block) == 348 else header["magic"]
    start: bytes = header.binaryblock + bytes(4)
    return start + labels.astype(header.get_data_dtype(), copy=False).tobytes()


def write_content(path: Path, content: bytes) -> None:
    """Write a NIfTI file, compressed if its name says so; the same content always gives the same file."""
    if path.name.lower().endswith(".gz"):
        content = deflate.gzip_bytes(content)
    path.write_bytes(content)
