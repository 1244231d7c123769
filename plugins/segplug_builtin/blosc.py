"""Blosc2 compression of single buffers, from the C library that the package brings.

Importing the package takes a third of a second, most of it for its network and query parts; opening its library takes
nothing. Where the library is not found, the package does the same. Either unpacks what the other packed.
"""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_OVERHEAD = 32 + 64
"""Bytes by which a buffer that cannot be compressed grows at most, and some more."""

_SHUFFLE = 1
_ONE_AT_A_TIME = threading.Lock()
"""The library's settings are those of the process."""

if hasattr(os, "register_at_fork"):
    # a process forked while another thread is in here would wait for that thread, which it does not have
    os.register_at_fork(
        before=_ONE_AT_A_TIME.acquire, after_in_parent=_ONE_AT_A_TIME.release, after_in_child=_ONE_AT_A_TIME.release
    )


def compress(array: NDArray[Any], codec: str, level: int) -> bytes:
    """Pack an array that is not empty.

    Args:
        codec: LZ4 or another of Blosc2's.
        level: 1 to 9.
    """
    library = _library()
    if library is None:
        return _compress_by_package(array, codec, level)
    packed = np.empty(array.nbytes + _OVERHEAD, np.uint8)
    with _ONE_AT_A_TIME:
        if library.blosc1_set_compressor(codec.lower().encode()) < 0:
            return _compress_by_package(array, codec, level)
        size = library.blosc2_compress(
            level, _SHUFFLE, array.itemsize, array.ctypes.data, array.nbytes, packed.ctypes.data, packed.nbytes
        )
    if size <= 0:
        raise RuntimeError(f"Blosc2 cannot compress {array.nbytes} bytes: error {size}")
    return packed[:size].tobytes()


def decompress(packed: bytes, into: NDArray[Any]) -> None:
    """Unpack into an array that has the size.

    Raises:
        RuntimeError, ValueError, TypeError: the bytes are damaged, or of another size.
    """
    library = _library()
    if library is None:
        import blosc2

        blosc2.decompress2(packed, dst=into, nthreads=1)
        return
    with _ONE_AT_A_TIME:
        size = library.blosc2_decompress(packed, len(packed), into.ctypes.data, into.nbytes)
    if size != into.nbytes:
        raise RuntimeError(f"error {size}" if size < 0 else f"{size} bytes; expected {into.nbytes}")


def _compress_by_package(array: NDArray[Any], codec: str, level: int) -> bytes:
    import blosc2

    packed: bytes = blosc2.compress2(
        array,
        codec=blosc2.Codec[codec],
        clevel=level,
        filters=[blosc2.Filter.SHUFFLE],
        filters_meta=[0],
        typesize=array.itemsize,
        nthreads=1,
    )
    return packed


@cache
def _library() -> Any:
    """The package's C library, or None where it does not lie in the package. It has one thread."""
    spec = find_spec("blosc2")
    if spec is None or spec.origin is None:
        return None
    found = sorted((Path(spec.origin).parent / "lib").glob("libblosc2.so*"))
    try:
        library = ctypes.CDLL(str(found[0]))
        library.blosc2_init()
    except (IndexError, OSError, AttributeError):
        return None
    library.blosc2_compress.argtypes = [
        ctypes.c_int, ctypes.c_int, ctypes.c_int32,
        ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32,
    ]  # fmt: skip
    library.blosc2_decompress.argtypes = [ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32]
    return library
