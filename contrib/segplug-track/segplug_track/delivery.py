"""A process that delivers journals to one destination, as the training sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from segplug_track.options import Options
from segplug_track.state import read_state, write_state

HURRY = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""MLflow's own defaults try for minutes, and attempts are repeated here. What the environment says goes first."""


@dataclass
class Delivery:
    """A process that delivers the journals of folders `tracking` to one destination.

    Args:
        folders: of which the first has the process's log.
    """

    destination: str
    folders: list[Path]
    process: subprocess.Popen[bytes]
    was_late: bool = False

    @classmethod
    def start(cls, options: Options, destination: str, folders: list[Path], follow: bool) -> Delivery:
        """Start it; with `follow`, to deliver until this process's training is over.

        Raises:
            OSError: it cannot be started.
        """
        told = {
            "options": asdict(options),
            "destination": destination,
            "folders": [str(folder) for folder in folders],
            "parent": os.getpid() if follow else None,
        }
        for folder in folders:  # whatever failed before may go well now
            state = read_state(folder, destination)
            if state.problem:
                write_state(folder, destination, replace(state, problem=""))
        with (folders[0] / f"{destination}.log").open("wb") as log:
            process = subprocess.Popen(
                # -P: nothing that stands in the current folder is imported
                [sys.executable, "-P", "-m", "segplug_track.deliver"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**HURRY, **os.environ},
                start_new_session=True,  # Ctrl-C ends the training; this is to tell it
            )
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as pipe:  # if it has ended already its log says why
            pipe.write(json.dumps(told).encode())
        return cls(destination, list(folders), process)

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def wait(self, until: float, failing_until: float) -> None:
        """Wait for its end till a moment of time.monotonic(), or another one where it fails. Then it is killed."""
        while not self.is_over:
            if time.monotonic() >= (failing_until if self._said() else until):
                self.was_late = True
                self.process.kill()
                self.process.wait()
            time.sleep(0.05)

    def problem(self) -> str:
        """What went wrong so far, and what to do: sentences; empty if nothing."""
        found = self._said()
        if not found and self.was_late:
            found = "no answer in time"
        elif not found and self.is_over and self.process.returncode:
            found = self._logged() or f"its process ended with {self.process.returncode}"
        if not found:
            return ""
        missing = found.startswith("ModuleNotFoundError")
        return f"{found}. pip install 'segplug-track[{self.destination}]'." if missing else f"{found}."

    def _said(self) -> str:
        problems = (read_state(folder, self.destination).problem for folder in self.folders)
        return next((problem for problem in problems if problem), "")

    def _logged(self) -> str:
        """The last line that the process said."""
        with suppress(OSError):
            text = (self.folders[0] / f"{self.destination}.log").read_text(errors="replace").strip()
            return text.rpartition("\n")[2]
        return ""
