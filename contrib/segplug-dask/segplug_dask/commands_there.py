"""Commands of segplug that run on workers, each in a process of its own that ends with its worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segplug.errors import SegplugError

_BOOT = (
    "import ctypes, json, os, runpy, sys\n"
    "if sys.platform == 'linux':\n"
    "    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: else it would hold locks and the device\n"
    "    if os.getppid() != int(sys.argv[1]): os._exit(1)\n"
    "sys.argv = ['segplug', *json.loads(sys.argv[2])]\n"
    "runpy.run_module('segplug', run_name='__main__', alter_sys=True)\n"
)
_TOLD = 2000
"""Characters of a failed command's last words."""


class CommandFailedError(SegplugError):
    """A command on a worker ended with another exit code than 0."""


@dataclass(frozen=True)
class Place:
    """Where commands run; the same on each machine, on a file system that they share.

    Args:
        folder: the current folder.
        options: what stands before each command: the folders of the data, the settings file.
    """

    folder: str
    options: tuple[str, ...] = field(default=())


def run_command(place: Place, arguments: Sequence[str], *after: str) -> str:
    """Run one to its end.

    Args:
        place: where.
        arguments: as behind `segplug` on a command line.
        after: what other commands printed, which had to be done before.

    Returns:
        What it printed.

    Raises:
        CommandFailedError: it failed; with the end of what it said.
    """
    given = [*place.options, *arguments]
    done = subprocess.run(
        [sys.executable, "-P", "-c", _BOOT, str(os.getpid()), json.dumps(given)],
        cwd=Path(place.folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        how = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        said = (done.stderr or done.stdout).strip()[-_TOLD:]
        raise CommandFailedError(f"segplug {' '.join(arguments)}: {how}: {said}")
    return done.stdout
