"""Probabilities of whole images: an array on disk while they come in, then nnU-Net's `.npz`."""

from __future__ import annotations

import mmap
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from segplug.errors import DataError
from segplug.runtime.files import replacing

KEY = "probabilities"
_MEMBER = f"{KEY}.npy"
_BYTES_AT_ONCE = 1 << 24
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError, RuntimeError, TokenError)
"""What zipfile and NumPy raise where bytes of a file are wrong."""


def scratch_array(
    shape: Sequence[int],
    folder: Path | None = None,
    what: str = "probabilities",
    cause: str = "--save-probabilities",
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """An array of zeros that lies in a file without a name: it is gone with the array, also after a crash.

    Args:
        folder: on whose disk, made already or not; None for the system's temporary folder.
        what: it is for, and the option that asked for it: for the error.

    Raises:
        DataError: the disk has no room for it.
    """
    size = prod(shape) * np.dtype(dtype).itemsize
    if folder is not None:
        folder = next(f for f in (folder, *folder.absolute().parents) if f.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), size)
            return np.memmap(file, dtype, "r+", shape=tuple(shape))
    except OSError as error:
        raise DataError(
            f"{folder or tempfile.gettempdir()}: no room for {what} of {size / 1e9:.1f} GB: {error.strerror}. "
            f"Free space, or predict without {cause}"
        ) from None


def forget_pages(array: NDArray[Any] | None) -> None:
    """Take what an array mapped from a file has in memory out of it; it is read again when it is needed.

    Nothing for an array that is not mapped.
    """
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)  # the mapping is shared with the file, which keeps what was written


def write_probabilities(path: Path, probabilities: NDArray[np.floating]) -> None:
    """Write (classes, z, y, x) as `.npz` with the key that nnU-Net uses, piece by piece, whole or not at all."""
    header = np.lib.format.header_data_from_array_1_0(np.empty(0, probabilities.dtype))
    with (
        replacing(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(_MEMBER, "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_2_0(member, {**header, "shape": probabilities.shape})
        for channel in probabilities:
            for rows in pieces(probabilities.shape):
                member.write(np.ascontiguousarray(channel[rows]).data)
            forget_pages(probabilities)


def pieces(shape: Sequence[int]) -> list[slice]:
    """Slices of the first spatial axis of (classes, z, y, x) that are worked on together: at most 16 MB in float32."""
    step = max(1, _BYTES_AT_ONCE // max(4 * int(np.prod(shape[2:])), 1))
    return [slice(start, min(start + step, shape[1])) for start in range(0, shape[1], step)]


class ProbabilityFile:
    """Reads an `.npz` of probabilities piece by piece, in the order in which they lie in the file.

    Used as a context manager; `shape` (classes, z, y, x) and `dtype` are known within.

    Raises:
        DataError: on entering, the file is missing, damaged or holds no such array; while reading, it ends too soon.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape: tuple[int, ...] = ()
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        self._resources = ExitStack()

    def __enter__(self) -> ProbabilityFile:
        with self._telling(), ExitStack() as opened:
            archive = opened.enter_context(zipfile.ZipFile(self.path))
            self._member = opened.enter_context(archive.open(_MEMBER))
            version = np.lib.format.read_magic(self._member)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, self._backwards, self.dtype = read(self._member)
            if len(self.shape) != 4 or min(self.shape) < 1 or self.dtype.kind != "f":
                raise DataError(
                    f"{self.path}: an array {self.shape} of {self.dtype}; expected probabilities (classes, z, y, x)"
                )
            self._resources = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def pieces(self) -> Iterator[NDArray[np.floating]]:
        """Every piece (slices, y, x), as `pieces` cuts the channels, channel after channel."""
        if self._backwards:  # the last axis comes first: only a copy on disk can be read in our order
            yield from self._straightened()
            return
        for _ in range(self.shape[0]):
            for rows in pieces(self.shape):
                yield self._next((rows.stop - rows.start, *self.shape[2:]))

    def _next(self, shape: Sequence[int]) -> NDArray[np.floating]:
        size = int(np.prod(shape)) * self.dtype.itemsize
        with self._telling():
            content = self._member.read(size)
            if len(content) != size:
                raise DataError(f"{self.path}: ends too soon. Predict this case again")
        return np.frombuffer(content, self.dtype).reshape(shape)

    def _straightened(self) -> Iterator[NDArray[np.floating]]:
        with tempfile.TemporaryFile() as file:
            while block := self._read_block():
                file.write(block)
            file.flush()
            if file.tell() != int(np.prod(self.shape)) * self.dtype.itemsize:
                raise DataError(f"{self.path}: ends too soon. Predict this case again")
            whole: NDArray[np.floating] = np.memmap(file, self.dtype, "r", shape=self.shape, order="F")
            for channel in whole:
                for rows in pieces(self.shape):
                    yield channel[rows]

    def _read_block(self) -> bytes:
        with self._telling():
            return self._member.read(_BYTES_AT_ONCE)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file. Predict with --save-probabilities") from None
        except KeyError:
            raise DataError(
                f"{self.path}: holds no {KEY!r}; expected probabilities as prediction writes them"
            ) from None
        except _DAMAGE as error:
            raise DataError(f"{self.path}: cannot be read: {error}. Predict this case again") from None


def _reserve(descriptor: int, size: int) -> None:
    """Take the space now: a full disk would otherwise kill the process when the mapped array is written."""
    import os

    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, max(size, 1))
    else:
        os.truncate(descriptor, max(size, 1))
