"""Working ahead in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from segplug.runtime.overlap import ahead, made_ahead


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


def test_made_ahead_of_what_is_asked_for() -> None:
    taken: list[int] = []
    ended = threading.Event()

    def items() -> Iterator[int]:
        for n in range(4):
            taken.append(n)
            yield n
        ended.set()

    made = made_ahead(str, items())
    assert next(made) == "0"
    deadline = time.monotonic() + 10
    while len(taken) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert taken == [0, 1]  # the next one, and no more
    assert list(made) == ["1", "2", "3"]
    assert ended.is_set()


def test_made_ahead_tells_errors_where_they_belong() -> None:
    made = made_ahead(lambda n: 1 // n, iter([1, 0, 1]))
    assert next(made) == 1
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_made_ahead_ends_when_it_is_closed() -> None:
    before = threading.active_count()
    made = made_ahead(str, iter(range(100)))
    assert next(made) == "0"
    made.close()
    assert threading.active_count() == before
