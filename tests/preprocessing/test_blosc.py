"""Packing by Blosc2's library is left in order when a process is forked."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

from segplug_builtin import blosc

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 and later: threads are the point
def test_forked_while_another_thread_packs() -> None:
    array = np.random.default_rng(0).integers(0, 9, 1 << 20).astype(np.int16)
    over = threading.Event()

    def pack() -> None:
        while not over.is_set():
            blosc.compress(array, "LZ4", 1)

    threads = [threading.Thread(target=pack) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a child that waits for ever
                into = np.empty_like(array)
                blosc.decompress(blosc.compress(array, "LZ4", 1), into)
                os._exit(0 if np.array_equal(into, array) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        over.set()
        for thread in threads:
            thread.join()
