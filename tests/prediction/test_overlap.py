"""Working ahead in a thread."""

from __future__ import annotations

import threading
import time

import pytest

from segplug.runtime.overlap import ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_and_errors_in_order(threads: int) -> None:
    def half(n: int) -> int:
        if n % 2:
            raise ValueError(str(n))
        return n // 2

    found = [(item, future.exception() or future.result()) for item, future in ahead(half, range(7), threads)]
    assert [item for item, _ in found] == list(range(7))
    assert [r if isinstance(r, int) else str(r) for _, r in found] == [0, "1", 1, "3", 2, "5", 3]


def test_the_next_is_worked_on_meanwhile_and_no_more() -> None:
    started: list[int] = []
    second = threading.Event()

    def work(n: int) -> int:
        started.append(n)
        if n == 1:
            second.set()
        return n

    for item, future in ahead(work, range(5), 1):
        assert future.result() == item
        if item == 0:
            assert second.wait(10)
        time.sleep(0.01)
        assert len(started) <= item + 2


def test_giving_up_ends_the_threads() -> None:
    before = threading.active_count()
    for _item, _future in ahead(lambda n: n, range(100), 2):
        break
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_nothing_to_do() -> None:
    assert list(ahead(str, [], 2)) == []
