"""Freed memory is kept within `keeping_freed_memory`, counted by the pages that the system has to make."""

from __future__ import annotations

import resource
import sys
from typing import Any

import numpy as np
import pytest

from segplug.runtime import kept_memory
from segplug.runtime.kept_memory import keeping_freed_memory

PAGES = 64 * (1 << 20) // resource.getpagesize()
"""Of one array; larger than what the C library keeps by itself."""


def new_pages(times: int) -> int:
    """Pages made while an array is written and freed `times` times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        array = np.empty(PAGES * resource.getpagesize(), np.uint8)
        array[:: resource.getpagesize()] = 1
        del array
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.fixture
def glibc() -> None:
    if sys.platform != "linux" or kept_memory._glibc() is None:
        pytest.skip("another C library manages memory")


@pytest.mark.usefixtures("glibc")
def test_pages_are_made_once() -> None:
    with keeping_freed_memory():
        new_pages(1)
        with keeping_freed_memory():  # the inner end changes nothing
            pass
        kept = new_pages(10)
    given_back = new_pages(10)
    # huge pages can make fewer than one fault a page; never so few as none at all for 640 MB
    assert kept < 100
    assert given_back > 10 * max(kept, 1)


@pytest.mark.usefixtures("glibc")
def test_an_older_library_that_refuses_large_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    real = kept_memory._set

    def refusing(library: Any, parameter: int, value: int) -> bool:
        return (
            value <= 1 << 25 and real(library, parameter, value) if parameter == -3 else real(library, parameter, value)
        )

    monkeypatch.setattr(kept_memory, "_set", refusing)
    with keeping_freed_memory():
        new_pages(1)
        assert new_pages(10) < 100


def test_without_glibc_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_memory, "_glibc", lambda: None)
    monkeypatch.setattr(kept_memory, "_set", lambda *_: pytest.fail("set something"))
    with keeping_freed_memory():
        pass


@pytest.mark.usefixtures("glibc")
def test_it_ends_with_an_error_too() -> None:
    with pytest.raises(ValueError, match="wrong"), keeping_freed_memory():
        raise ValueError("wrong")
    assert new_pages(10) > 100
