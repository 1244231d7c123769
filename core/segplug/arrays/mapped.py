"""Arrays that are mapped from a file on disk."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from segplug.runtime.probability_file import forget_pages


def release(array: NDArray[Any]) -> None:
    """Give back the memory of what has been read of an array, which may be a view; it is read again when it is needed.

    Nothing for an array that is not mapped.
    """
    forget_pages(array)
