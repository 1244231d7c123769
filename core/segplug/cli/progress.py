"""The progress display, a plugin on the event hooks like any other.

In a terminal: one bar per running stage with the time left. Elsewhere: plain lines, at most one every few seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.kernel import hookimpl
from segplug.model import EpochReport
from segplug.runtime.wording import counted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_LINES = 10.0


class ProgressDisplay:
    """Shows stages, their steps and epochs on standard error. A context manager, so that the terminal is left clean."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._progress is not None:
            self._progress.stop()

    @hookimpl
    def segplug_stage_started(self, stage: str, subject: str, total: int) -> None:
        now = time.monotonic()
        self._started[stage] = self._last_line[stage] = now
        if self._terminal:
            bars = self._bars()
            self._tasks[stage] = bars.add_task(f"{stage} {subject}", total=total or None, detail="")
        else:
            self._line(f"{stage} {subject}: started" + (f", {counted(total, 'step')}" if total else ""))

    @hookimpl
    def segplug_stage_progress(self, stage: str, item: str, done: int, total: int) -> None:
        if stage in self._tasks:
            self._bars().update(self._tasks[stage], completed=done, total=total or None, detail=item)
            return
        now = time.monotonic()
        if now - self._last_line.get(stage, 0.0) >= SECONDS_BETWEEN_LINES or done == total:
            self._last_line[stage] = now
            self._line(
                " ".join(filter(None, (f"{stage}: {done}/{total}", item, self._time_left(stage, now, done, total))))
            )

    @hookimpl
    def segplug_stage_finished(self, stage: str, subject: str, seconds: float, error: str) -> None:
        if stage in self._tasks:
            self._bars().remove_task(self._tasks.pop(stage))
        self._line(f"{stage} {subject}: {'failed' if error else 'done'} after {seconds:.1f} s")

    @hookimpl
    def segplug_epoch_finished(self, folder: Path, report: EpochReport) -> None:
        text = (
            f"epoch {report.epoch + 1}/{report.epochs}: train loss {report.train_loss:.4f}, "
            f"val loss {report.val_loss:.4f}, pseudo Dice {report.mean_dice:.4f}, "
            f"lr {report.learning_rate:.2e}, {report.seconds:.1f} s"
        )
        self._line(text)

    def _time_left(self, stage: str, now: float, done: int, total: int) -> str:
        if not 0 < done < total:
            return ""
        left = (now - self._started.get(stage, now)) / done * (total - done)
        return f"(about {left:.0f} s left)"

    def _bars(self) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}"),
                console=Console(stderr=True),
            )
            self._progress.start()
        return self._progress

    def _line(self, text: str) -> None:
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
