"""Loader workers are forks: beside torch's threads, beside a lock that a thread holds, and where there is no fork."""

from __future__ import annotations

import importlib.util
import io
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from segplug.errors import SegplugError
from segplug.runtime import loader_workers

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def loading() -> Any:
    """The helpers of the tests beside this file."""
    place = Path(__file__).with_name("test_batch_loader.py")
    spec = importlib.util.spec_from_file_location("batch_loader_helpers", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def workers() -> list[psutil.Process]:
    return [c for c in psutil.Process().children() if c.status() != psutil.STATUS_ZOMBIE]


def test_workers_begin_beside_threads_that_train_and_save(make_store: Make, loading: Any) -> None:
    """As in `run`, where fold 1 begins after fold 0 has used torch's threads, and a checkpoint may be under way."""
    network = nn.Sequential(nn.Conv3d(1, 8, 3), nn.InstanceNorm3d(8), nn.Conv3d(8, 2, 3))
    ended = threading.Event()

    def train() -> None:
        while not ended.is_set():
            network(torch.randn(2, 1, 20, 20, 20)).square().mean().backward()
            torch.save(network.state_dict(), io.BytesIO())

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    thread = threading.Thread(target=train)
    try:
        store = make_store()
        alone = loading.all_of(store)
        thread.start()
        for _ in range(4):
            assert loading.same(loading.all_of(store, workers=2), alone)
    finally:
        ended.set()
        thread.join()
        torch.set_num_threads(before)


def hold_the_lock_of_numpys_random_state(release: threading.Event, seconds: float = 60) -> threading.Thread:
    """batchgenerators' producer takes it before anything else; a fork that begins meanwhile waits for ever."""
    lock = np.random.mtrand._rand._bit_generator.lock
    taken = threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            release.wait(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    return thread


def test_a_fork_that_waits_for_a_lost_lock_is_replaced(
    make_store: Make, loading: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    alone = loading.all_of(store)
    monkeypatch.setattr(loader_workers, "_BEGIN_WITHIN", 1.0)
    thread = hold_the_lock_of_numpys_random_state(threading.Event(), 0.9)
    with loading.batches(store, workers=2) as opened:
        first = next(opened)
        processes = workers()
        rest = list(opened)
    thread.join()
    assert len(processes) == 2
    assert loading.same([first, *rest], alone)
    assert not workers()


def test_a_fork_that_never_begins_is_an_error(make_store: Make, loading: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_workers, "_BEGIN_WITHIN", 0.05)
    release = threading.Event()
    thread = hold_the_lock_of_numpys_random_state(release)
    with (
        loading.batches(make_store(), workers=1) as opened,
        pytest.raises(SegplugError, match=r"did not begin in 4 attempts.*--workers 0"),
    ):
        next(opened)
    assert not workers()
    release.set()
    thread.join()


def test_a_system_that_cannot_fork_makes_batches_here(
    make_store: Make, loading: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    alone = loading.all_of(store)
    monkeypatch.setattr(loader_workers, "CAN_FORK", False)
    with pytest.warns(UserWarning, match=r"cannot fork.*training's own process"):
        here = loading.all_of(store, workers=2)
    assert loading.same(here, alone)
