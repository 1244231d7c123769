"""The journal of a run: what happened, a JSON object a line, in `tracking/journal.jsonl`.

The training only appends to it; destinations are told by processes of their own, which read it. An epoch is told when a
checkpoint has it: what a killed training did after its last checkpoint is done again when it is continued, and would be
there twice.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

FOLDER = "tracking"
"""Within the folder of a fold, or of label maps that were evaluated."""

Entry = Mapping[str, Any]


class Journal:
    """A run's journal.

    Args:
        folder: the folder `tracking` itself.
    """

    FILE = "journal.jsonl"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / self.FILE
        self._unwritten: list[str] = []
        self._has_key = False

    def append(self, kind: str, **values: Any) -> None:
        """Add an entry. One that cannot be written is kept, and written with the next that can.

        Raises:
            OSError: it cannot be written.
        """
        self._unwritten.append(json.dumps({"kind": kind, "time": time.time(), **values}, default=_plain))
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._has_key and not self.key():
            self._unwritten.insert(0, json.dumps({"kind": "run", "key": uuid.uuid4().hex}))
        self._has_key = True
        text = "".join(f"{line}\n" for line in self._unwritten)
        with self.file.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # the process was killed within a line, or the disk was full
                    text = "\n" + text
            file.write(text.encode())
        self._unwritten.clear()

    @property
    def unwritten(self) -> int:
        """Number of entries that could not be written."""
        return len(self._unwritten)

    def entries(self) -> list[Entry]:
        """All whole entries."""
        if not self.file.is_file():
            return []
        found: list[Entry] = []
        for line in self.file.read_bytes().splitlines(keepends=True):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                continue
            if isinstance(entry, dict) and "kind" in entry:
                found.append(entry)
        return found

    def key(self) -> str:
        """What tells the run from every other; empty before there is an entry."""
        return next((str(entry["key"]) for entry in self.entries() if entry["kind"] == "run"), "")

    def set_aside(self) -> None:
        """Rename the folder, if there is one: another run begins.

        Raises:
            OSError: it cannot be renamed.
        """
        if self.folder.is_dir():
            self.folder.rename(self.folder.with_name(f"previous_{self.folder.name}_{datetime.now():%Y%m%d_%H%M%S_%f}"))


def _plain(value: Any) -> float | str:
    """Numbers of NumPy and torch, and whatever else trainers report."""
    return float(value) if hasattr(value, "__float__") else str(value)


def to_deliver(entries: Iterable[Entry]) -> Iterator[Entry]:
    """What destinations are to be told, in order. A longer journal gives the same, and perhaps more.

    Epochs come once each, when they are in a checkpoint; entries about checkpoints do not come. Each gets the `step` it
    belongs to (an epoch; where nothing was trained, the number of the evaluation) and the `classes` of the training:
    values with their names.
    """
    waiting: dict[int, Entry] = {}
    done = evaluations = 0
    classes: Any = []
    for entry in entries:
        kind = entry["kind"]
        if kind == "epoch":
            waiting[entry["epoch"]] = entry
            continue
        saved = {"saved": entry.get("epochs"), "start": entry.get("epochs_done")}.get(kind)
        if kind == "end" and not entry["error"]:
            saved = max(waiting, default=-1) + 1
        for epoch in sorted(waiting):
            if saved is not None and done <= epoch < saved:
                yield {**waiting.pop(epoch), "step": epoch, "classes": classes}
                done = epoch + 1
        if kind == "start":
            classes = entry["classes"]
            waiting.clear()  # whatever is not in the checkpoint is done again
        if kind in ("start", "end", "evaluated", "chosen"):
            last = done - 1 if done else max(evaluations - (kind != "evaluated"), 0)
            yield {**entry, "step": last, "classes": classes}
        evaluations += kind == "evaluated"


def ending(entries: Iterable[Entry]) -> str:
    """How the run ended: `killed`, `failed`, `finished`; a training that still runs looks as if killed."""
    last = next((entry for entry in reversed(list(entries)) if entry["kind"] in ("start", "end")), None)
    if last is None:
        return "finished"
    if last["kind"] == "start" or last["error"] == "KeyboardInterrupt":
        return "killed"
    return "failed" if last["error"] else "finished"
