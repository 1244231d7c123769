"""One run at a time in a folder of results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segplug.errors import UsageError
from segplug.runtime.files import PARTIAL


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Hold a folder (made if missing) for one run, and clear away half-written files that a killed run left there.

    The lock is on the folder itself and ends with the process, however that ends. Where the file system has no locks
    there is none.

    Raises:
        UsageError: another run works in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        for entry in os.scandir(folder):
            if entry.name.startswith(PARTIAL):
                Path(entry.path).unlink(missing_ok=True)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{folder}: another run is writing here. Wait for it, or end it, and call again") from None
    except OSError:  # network file systems without locks
        return
