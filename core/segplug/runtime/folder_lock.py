"""One run at a time in a folder of results, or the parts of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from segplug.errors import UsageError
from segplug.runtime.files import PARTIAL, remove
from segplug.runtime.parts import WHOLE, Part

LOCKS = ".segplug"
"""Folder within, for the locks of parts."""


@contextmanager
def working_in(folder: Path, part: Part = WHOLE) -> Iterator[None]:
    """Hold a folder (made if missing) for one run, and clear away half-written files that a killed run left there.

    The lock is on the folder itself and ends with the process, however that ends. Where the file system has no locks
    there is none.

    Args:
        part: of a run, which works beside the others in the folder; half-written files may be theirs, and stay.

    Raises:
        UsageError: another run works in the folder, or the same part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        if part.whole:
            held.enter_context(_locked(folder, f"{folder}: another run"))
            for name in os.listdir(folder):
                if name.startswith(PARTIAL):
                    remove(folder / name)
        else:
            held.enter_context(_locked(folder, f"{folder}: a run that is no part", shared=True))
            file = folder / LOCKS / f"part-{part.number}-of-{part.count}.lock"
            file.parent.mkdir(exist_ok=True)
            file.touch()
            held.enter_context(_locked(file, f"{folder}: another run of {part}"))
            held.callback(file.unlink, missing_ok=True)
        yield


@contextmanager
def _locked(path: Path, rival: str, shared: bool = False) -> Iterator[None]:
    handle = os.open(path, os.O_RDONLY)
    try:
        _lock(handle, rival, shared)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, rival: str, shared: bool) -> None:
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{rival} is writing here. Wait for it, or end it, and call again") from None
    except OSError:  # network file systems without locks
        return
