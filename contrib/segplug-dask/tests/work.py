"""What the workers of the tests are given to do: importable by name in their processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square_or_die(item: int, folder: str, deaths: int, victim: int = 3) -> int:
    """The square; in mid-case of the victim, the worker process is killed, so many times."""
    with (Path(folder) / f"begun_{item}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if item == victim and len((Path(folder) / f"begun_{item}").read_text().split()) <= deaths:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


def process_number(item: int) -> int:
    """Of the worker."""
    time.sleep(0.3)
    return os.getpid()


def fail_without_name(item: int) -> int:
    """Raises what cannot be sent."""

    class LocalError(Exception):
        pass

    raise LocalError(f"no luck with {item}")
