"""The process that delivers journals to one destination: python -m segplug_track.deliver, told by standard input.

It is a process of its own so that nothing which a tracking library does (seconds of import, a server that hangs, a
crash) touches the training, and that it outlives a training that is killed.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from segplug_track.journal import Entry, Journal, ending, to_deliver
from segplug_track.options import MLFLOW, Options
from segplug_track.state import State, read_state, write_state

PAUSE = 0.5
"""Seconds between looks at a journal."""

RETRY = 15.0
"""Seconds between attempts on a destination that fails, while the training runs."""

ATTEMPTS = 3
"""On a destination that fails, at the end; a second apart."""

ORPHAN = 120.0
"""Seconds that remain for delivery when the training was killed."""

LOCKED = 10.0
"""Seconds to wait for another process that delivers the same journal, unless a training is followed."""


class Destination(Protocol):
    """Where a run is told."""

    run: str
    delivered: int
    """Entries that it had when it was opened; one more may be told in part."""

    def tell(self, entry: Entry) -> None:
        """Tell one entry."""

    def close(self, ending: str) -> None:
        """Everything is told, and this is how it ended: `finished`, `failed` or `killed`."""


class JournalGoneError(Exception):
    """Where the journal stood there is another run's, or none."""


class Deliverer:
    """Delivers one journal to one destination, from where it stopped.

    Args:
        folder: `tracking`.
    """

    def __init__(self, options: Options, name: str, folder: Path) -> None:
        self.options, self.name, self.folder = options, name, folder
        self.journal = Journal(folder)
        self.key = self.journal.key()
        self.state = read_state(folder, name)
        place = _without_password(f"{options.mlflow} {options.experiment}") if name == MLFLOW else ""
        if self.state.place != place:
            self.state = State(place=place)
        self._open: Destination | None = None
        self._entries: list[Entry] = []
        self._size = -1

    def look(self) -> str:
        """Read what is new in the journal; how the run ended by it, see `segplug_track.journal.ending`.

        Raises:
            JournalGoneError: another run has taken its place.
        """
        try:
            size = self.journal.file.stat().st_size
            if size != self._size:
                self._entries, self._size = self.journal.entries(), size
        except FileNotFoundError:
            self._entries = []
        if not any(entry["kind"] == "run" and entry["key"] == self.key for entry in self._entries[:1]):
            raise JournalGoneError(f"{self.journal.file}: not the run that was delivered")
        return ending(self._entries)

    def attempt(self, ended: str = "") -> bool:
        """Deliver what there is, and how the run ended; whether all went well. If not, the state has the problem."""
        try:
            self._deliver(list(to_deliver(self._entries)), ended)
        except Exception as error:
            self._open = None
            said = _without_password(" ".join(str(error).split()))[:500]
            with suppress(OSError):  # there is no other place to say so
                self._keep(replace(self.state, problem=f"{type(error).__name__}: {said}"))
            return False
        return True

    def _deliver(self, entries: list[Entry], ended: str) -> None:
        all_told = len(entries) == self.state.delivered and not self.state.problem
        if all_told and self.state.ended == ended:
            return
        if self._open is None:
            self._open = self._opened()
            self._keep(replace(self.state, run=self._open.run, delivered=self._open.delivered))
        for entry in entries[self.state.delivered :]:
            self._open.tell(entry)
            self._keep(replace(self.state, delivered=self.state.delivered + 1, ended=""))
        if ended:
            self._open.close(ended)
        self._keep(replace(self.state, ended=ended, problem=""))

    def _opened(self) -> Destination:
        if self.name == MLFLOW:
            from segplug_track.mlflow_run import MlflowRun

            return MlflowRun(self.options, self.folder, self.key, self.state)
        from segplug_track.tensorboard_run import TensorboardRun

        return TensorboardRun(self.folder)

    def _keep(self, state: State) -> None:
        if state != self.state:
            self.state = state
            write_state(self.folder, self.name, state)


def follow(deliverer: Deliverer, parent: int) -> None:
    """Deliver while a training goes on, and what is left when it has ended or was killed."""
    threading.Thread(target=_end_as_orphan, args=(parent,), daemon=True).start()
    next_attempt = 0.0
    while deliverer.look() == "killed" and os.getppid() == parent:
        if time.monotonic() >= next_attempt and not deliverer.attempt():
            next_attempt = time.monotonic() + RETRY
        time.sleep(PAUSE)
    deliver(deliverer)


def deliver(deliverer: Deliverer) -> None:
    """Deliver what there is, with a few attempts."""
    for number in range(ATTEMPTS):
        if number:
            time.sleep(1)
        if deliverer.attempt(deliverer.look()):
            return


def _end_as_orphan(parent: int) -> None:
    """A library that hangs is not to be there for ever when the training was killed."""
    while os.getppid() == parent:
        time.sleep(PAUSE)
    time.sleep(ORPHAN)
    os._exit(1)


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//", text)


def main(told: Mapping[str, Any]) -> None:
    """Deliver the journals that are named, one after the other."""
    with suppress(OSError, AttributeError):
        os.nice(5)
    options, destination, parent = Options(**told["options"]), told["destination"], told["parent"]
    busy = []
    for folder in map(Path, told["folders"]):
        # the process of a training that was killed may still be at it
        lock = FileLock(folder / f"{destination}.lock", timeout=LOCKED if parent is None else 2 * ORPHAN)
        try:
            with suppress(JournalGoneError), lock:
                deliverer = Deliverer(options, destination, folder)
                if parent is None:
                    deliver(deliverer)
                else:
                    follow(deliverer, parent)
        except Timeout:
            busy.append(str(folder.parent))
    if busy:
        sys.exit(f"another process is delivering {', '.join(busy)}")


if __name__ == "__main__":
    main(json.loads(sys.stdin.read()))
