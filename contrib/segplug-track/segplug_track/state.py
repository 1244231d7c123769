"""How far a destination has been told: `tracking/<destination>.json`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class State:
    """What one destination has of a run.

    Args:
        place: where it is, of several that a destination may be (MLflow's servers). What another place was told says
            nothing of this one.
        delivered: entries of `segplug_track.journal.to_deliver` that it has.
        run: its own name of the run; empty before there is one.
        ended: how it was told that the run ended; empty if it was not, or went on since.
        problem: why the last attempt failed; empty if it did not.
    """

    place: str = ""
    delivered: int = 0
    run: str = ""
    ended: str = ""
    problem: str = ""


def read_state(folder: Path, destination: str) -> State:
    """The state, or that of the beginning where there is none or it is damaged: destinations know what they have."""
    try:
        return State(**json.loads((folder / f"{destination}.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return State()


def write_state(folder: Path, destination: str, state: State) -> None:
    """Replace the state, whole or not at all."""
    partial = folder / f"{destination}.json.partial"
    partial.write_text(json.dumps(asdict(state)), encoding="utf-8")
    os.replace(partial, folder / f"{destination}.json")
