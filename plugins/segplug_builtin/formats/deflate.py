"""gzip and zlib streams through ISA-L, which unpacks images twice as fast as zlib and label maps three times.

It is a dependency on the platforms that it is built for; elsewhere zlib does the same.
"""

from __future__ import annotations

import zlib
from typing import Any

isal_zlib: Any
try:
    from isal import isal_zlib
except ImportError:
    isal_zlib = None

GZIP_OR_ZLIB = 47
"""`wbits` that recognise either container."""


def decompressor(*, fast: bool = True) -> Any:
    """An object like `zlib.decompressobj` for one gzip or zlib stream. Its errors are of `ERRORS`."""
    library = isal_zlib if fast and isal_zlib is not None else zlib
    return library.decompressobj(wbits=GZIP_OR_ZLIB)


def gzip_bytes(content: bytes) -> bytes:
    """Content as a gzip stream without a time stamp: the same content always gives the same bytes.

    ISA-L's level 1 packs label maps as well as zlib's levels 2 to 5, fifty times faster.
    """
    if isal_zlib is not None:
        compressor = isal_zlib.compressobj(level=1, wbits=31)
    else:
        compressor = zlib.compressobj(level=6, wbits=31)
    packed: bytes = compressor.compress(content) + compressor.flush()
    return packed


ERRORS: tuple[type[Exception], ...] = (zlib.error, *(() if isal_zlib is None else (isal_zlib.error,)))
