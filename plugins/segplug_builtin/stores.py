"""The Blosc2 store: one file per preprocessed case, in chunks that are compressed and checked one by one.

A file is a prelude (magic, sizes, checksum), a header in JSON, an index of (offset, size, CRC-32) per section, and
the sections: image chunks, target chunks, class locations, each a Blosc2 buffer. One file that is renamed into place
when it is whole makes a case atomic; the checksums make damage an error instead of odd voxels.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.protocols import PreprocessedCase
from segplug.runtime.files import PARTIAL, replacing
from segplug_builtin.blosc import compress, decompress

SUFFIX = ".case"
CHUNK_BYTES = 1 << 18
"""Largest chunk of one image channel: it stays in the cache while it is unpacked, and patches read little beside."""

_PRELUDE = struct.Struct("<8sIIQ")  # magic, length of the header, CRC-32 of header and index, size of the file
_MAGIC = b"segplug1"
_INDEX = np.dtype([("offset", "<u8"), ("size", "<u8"), ("crc", "<u4")])

ClassKey = int | tuple[int, ...]


@dataclass(frozen=True)
class Blosc2Store:
    """A folder of preprocessed cases, `CASE.case` each. Safe to use from several processes and to send to them.

    Args:
        folder: made when the first case is written.
        patch_size: two or three axes; chunks are parts of a patch.
        codec: a Blosc2 codec. LZ4 unpacks at memory speed; ZSTD makes images a tenth smaller and loading slower.
        level: of the codec, 1 to 9.
    """

    folder: Path
    patch_size: Sequence[int]
    codec: str = "LZ4"
    level: int = 5

    def cases(self) -> list[str]:
        """Names of the whole cases, sorted."""
        if not self.folder.is_dir():
            return []
        names = (e.name for e in os.scandir(self.folder) if e.name.endswith(SUFFIX) and not e.name.startswith(PARTIAL))
        return sorted(n for n in (name.removesuffix(SUFFIX) for name in names) if self.made_from(n) is not None)

    def made_from(self, name: str) -> Mapping[str, Any] | None:
        """The manifest of a whole case, or None if it is missing or damaged."""
        try:
            made_from: Mapping[str, Any] = self.open(name)._header["made_from"]
        except DataError:
            return None
        return made_from

    def open(self, name: str) -> Blosc2Case:
        """Open a case; its voxels are read later.

        Raises:
            DataError: it is not there, or damaged.
        """
        return Blosc2Case(self.folder / f"{name}{SUFFIX}")

    def write(self, name: str, case: PreprocessedCase, made_from: Mapping[str, Any]) -> None:
        """Keep a case, whole or not at all, in place of one of the same name."""
        shape = case.target.shape[1:]
        chunk = chunk_shape(shape, self.patch_size)
        header = {
            "shape": shape,
            "channels": len(case.data),
            "chunk": chunk,
            "locations": [[key, len(voxels)] for key, voxels in case.locations.items()],
            "properties": case.properties,
            "made_from": made_from,
        }
        text = json.dumps(header).encode()
        index = np.zeros(2 * _count(shape, chunk) + len(case.locations), _INDEX)
        path = self.folder / f"{name}{SUFFIX}"
        with replacing(path, flushed=False) as partial, partial.open("wb") as file:  # many small ones, with checksums
            file.seek(_PRELUDE.size + len(text) + index.nbytes)
            for record, section in zip(index, self._sections(case, chunk), strict=True):
                record["offset"], record["size"], record["crc"] = file.tell(), len(section), zlib.crc32(section)
                file.write(section)
            size = file.tell()
            file.seek(0)
            start = text + index.tobytes()
            file.write(_PRELUDE.pack(_MAGIC, len(text), zlib.crc32(start), size) + start)

    def _sections(self, case: PreprocessedCase, chunk: Sequence[int]) -> Iterator[bytes]:
        for array, kind in ((case.data, np.float32), (case.target, np.int16)):
            for box in _boxes(case.target.shape[1:], chunk):
                part = np.ascontiguousarray(array[(slice(None), *box)], dtype=kind)
                yield _compress(part, self.codec, self.level)
        for voxels in case.locations.values():
            flat = np.ravel_multi_index(tuple(np.asarray(voxels, np.int64).T), case.target.shape[1:])
            yield _compress(np.diff(flat, prepend=0).astype(np.int64), "ZSTD", self.level)


@dataclass(frozen=True)
class Blosc2Case:
    """A case of a Blosc2 store. Opening reads the header alone; no file stays open between reads."""

    path: Path
    _header: Mapping[str, Any] = field(init=False, repr=False)
    _index: NDArray[Any] = field(init=False, repr=False)
    _checked: set[int] = field(init=False, repr=False, default_factory=set)

    def __post_init__(self) -> None:
        header, index = _read_header(self.path)
        object.__setattr__(self, "_header", header)
        object.__setattr__(self, "_index", index)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape (z, y, x)."""
        return tuple(self._header["shape"])

    @property
    def channels(self) -> int:
        return int(self._header["channels"])

    @property
    def properties(self) -> Mapping[str, Any]:
        properties: Mapping[str, Any] = self._header["properties"]
        return properties

    @cached_property
    def locations(self) -> Mapping[ClassKey, NDArray[np.int32]]:
        """Per class, voxels (n, 3)."""
        first = 2 * _count(self.shape, self._header["chunk"])
        found: dict[ClassKey, NDArray[np.int32]] = {}
        with self._file() as file:
            for number, (key, count) in enumerate(self._header["locations"], first):
                flat = np.cumsum(self._section(file, number, (count,), np.int64))
                voxels = np.stack(np.unravel_index(flat, self.shape), axis=1).astype(np.int32)
                found[tuple(key) if isinstance(key, list) else key] = voxels
        return found

    def read(self, start: Sequence[int], stop: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Data, float32 (c, *size), and target, int16 (1, *size), of a box inside the image.

        Raises:
            DataError: what is stored there is damaged.
        """
        if not all(0 <= a <= b <= n for a, b, n in zip(start, stop, self.shape, strict=True)):
            raise ValueError(f"box {tuple(start)} to {tuple(stop)} is not inside an image of shape {self.shape}")
        size = [b - a for a, b in zip(start, stop, strict=True)]
        data = np.empty((self.channels, *size), np.float32)
        target = np.empty((1, *size), np.int16)
        if target.size == 0:
            return data, target
        chunk = self._header["chunk"]
        grid = [-(-n // c) for n, c in zip(self.shape, chunk, strict=True)]
        total = int(np.prod(grid))
        touched = [range(a // c, (b - 1) // c + 1) for a, b, c in zip(start, stop, chunk, strict=True)]
        buffer = np.empty(int(np.prod(chunk)) * max(4 * self.channels, 2), np.uint8)
        with self._file() as file:
            for place in product(*touched):
                low = [p * c for p, c in zip(place, chunk, strict=True)]
                high = [min(a + c, n) for a, c, n in zip(low, chunk, self.shape, strict=True)]
                begin = [max(a, s) for a, s in zip(low, start, strict=True)]
                end = [min(b, s) for b, s in zip(high, stop, strict=True)]
                inside = (slice(None), *_shifted(begin, end, low))
                goal = (slice(None), *_shifted(begin, end, start))
                number = int(np.ravel_multi_index(place, grid))
                extent = [b - a for a, b in zip(low, high, strict=True)]
                data[goal] = self._section(file, number, (self.channels, *extent), np.float32, buffer)[inside]
                target[goal] = self._section(file, total + number, (1, *extent), np.int16, buffer)[inside]
        return data, target

    def _file(self) -> Any:
        try:
            return self.path.open("rb", buffering=0)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}. Run preprocess again") from None

    def _section(
        self, file: Any, number: int, shape: tuple[int, ...], kind: Any, buffer: NDArray[np.uint8] | None = None
    ) -> NDArray[Any]:
        """Unpack a section, into `buffer` if one is given (new memory costs more than unpacking)."""
        record = self._index[number]
        packed = os.pread(file.fileno(), int(record["size"]), int(record["offset"]))
        if number not in self._checked:
            if len(packed) != record["size"] or zlib.crc32(packed) != record["crc"]:
                raise _damaged(self.path, "a checksum does not match")
            self._checked.add(number)
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        memory = np.empty(size, np.uint8) if buffer is None else buffer[:size]
        array: NDArray[Any] = memory.view(kind).reshape(shape)
        if array.size:
            try:
                decompress(packed, array)
            except (RuntimeError, ValueError, TypeError) as error:
                raise _damaged(self.path, f"it cannot be unpacked ({error})") from None
        return array


def chunk_shape(shape: Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...]:
    """Chunks for an image: a patch, halved along the side halved least (the longest of those) until it is small enough.

    An image that fits one chunk is one. A 2D patch is one slice thick; a few slices share a chunk where they are small.
    """
    largest, smallest = CHUNK_BYTES // 4, CHUNK_BYTES // 16
    flat = len(shape) - len(patch_size)
    if not flat and np.prod(shape) <= largest:
        return tuple(shape)
    chunk = [min(p, n) for p, n in zip([1] * flat + list(patch_size), shape, strict=True)]
    halvings = [0] * len(shape)
    while np.prod(chunk) > largest:
        axis = min((a for a in range(len(shape)) if chunk[a] > 1), key=lambda a: (halvings[a], -chunk[a]))
        chunk[axis] = -(-chunk[axis] // 2)
        halvings[axis] += 1
    if flat:
        chunk[0] = max(1, min(shape[0], smallest // int(np.prod(chunk))))
    return tuple(chunk)


def _read_header(path: Path) -> tuple[Mapping[str, Any], NDArray[Any]]:
    try:
        with path.open("rb") as file:
            prelude = file.read(_PRELUDE.size)
            if len(prelude) < _PRELUDE.size:
                raise _damaged(path, "it ends too early")
            magic, length, crc, size = _PRELUDE.unpack(prelude)
            if magic != _MAGIC:
                raise _damaged(path, "it is no case of this store")
            if os.fstat(file.fileno()).st_size != size:
                raise _damaged(path, f"it should have {size} bytes")
            text = file.read(length)
            header = json.loads(text) if len(text) == length and zlib.crc32(text) else {}
            count = 2 * _count(header["shape"], header["chunk"]) + len(header["locations"])
            table = file.read(count * _INDEX.itemsize)
    except FileNotFoundError:
        raise DataError(f"{path}: no such preprocessed case. Run preprocess") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Run preprocess again") from None
    except (ValueError, KeyError, TypeError):
        raise _damaged(path, "its header cannot be read") from None
    if zlib.crc32(text + table) != crc:
        raise _damaged(path, "the checksum of its header does not match")
    return header, np.frombuffer(table, _INDEX)


def _damaged(path: Path, how: str) -> DataError:
    return DataError(f"{path}: damaged: {how}. Run preprocess again; it redoes what is damaged")


def _compress(array: NDArray[Any], codec: str, level: int) -> bytes:
    return compress(array, codec, level) if array.size else b""


def _count(shape: Sequence[int], chunk: Sequence[int]) -> int:
    return int(np.prod([-(-n // c) for n, c in zip(shape, chunk, strict=True)]))


def _boxes(shape: Sequence[int], chunk: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """The chunks of an image in the order of the file."""
    starts = [range(0, n, c) for n, c in zip(shape, chunk, strict=True)]
    for at in product(*starts):
        yield tuple(slice(a, a + c) for a, c in zip(at, chunk, strict=True))


def _shifted(begin: Sequence[int], end: Sequence[int], origin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(b - o, e - o) for b, e, o in zip(begin, end, origin, strict=True))
