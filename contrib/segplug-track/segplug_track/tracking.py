"""What the process of the training does: append to journals, start the processes that deliver them, never fail."""

from __future__ import annotations

import atexit
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from segplug_track import entries
from segplug_track.delivery import Delivery
from segplug_track.journal import FOLDER, Journal
from segplug_track.options import Options

if TYPE_CHECKING:
    from segplug.model import Choice, EpochReport, Evaluation, TrainingStart

FAILING = 5.0
"""Seconds to wait at the end for a destination that has failed already; the patience if that is less."""

P = ParamSpec("P")


def harmless(method: Callable[Concatenate[Tracking, P], None]) -> Callable[Concatenate[Tracking, P], None]:
    """Whatever the method raises becomes a warning, once."""

    @wraps(method)
    def guarded(self: Tracking, /, *given: P.args, **named: P.kwargs) -> None:
        try:
            method(self, *given, **named)
        except Exception as error:
            self.warn("segplug-track", f"{type(error).__name__}: {error}")

    return guarded


@dataclass
class Run:
    """A training that goes on."""

    journal: Journal
    deliveries: list[Delivery] = field(default_factory=list)
    is_followed: bool = False


@dataclass
class Tracking:
    """Everything that is tracked in this process.

    Args:
        options: see `Options`.
    """

    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        self._trainings: dict[Path, Run] = {}
        self._waiting: list[Path] = []
        self._others: list[Delivery] = []
        self._warned: set[str] = set()
        self._ending = False

    # --- what happened ---------------------------------------------------------------------------------------------

    @harmless
    def training_started(self, training: TrainingStart) -> None:
        """Begin or go on with the run of a fold."""
        if not self.options.destinations:
            return
        values = entries.started(training)
        journal = Journal(training.folder / FOLDER)
        if not training.continued:
            journal.set_aside()
        self._trainings[training.folder] = Run(journal)
        self._at_exit()
        self._tell(self._trainings[training.folder], "start", values)

    @harmless
    def epoch_finished(self, folder: Path, report: EpochReport) -> None:
        """An epoch, and a look at whether all goes well."""
        if folder in self._trainings:
            self._tell(self._trainings[folder], "epoch", entries.epoch(report))
            self._look(self._trainings[folder].deliveries)

    @harmless
    def checkpoint_written(self, folder: Path, epochs: int) -> None:
        """Which epochs will not be done again."""
        if folder in self._trainings:
            self._tell(self._trainings[folder], "saved", {"epochs": epochs})

    @harmless
    def training_finished(self, folder: Path, error: str) -> None:
        """Wait for what is not delivered as long as the patience lasts."""
        run = self._trainings.pop(folder, None)
        if run is None:
            return
        self._tell(run, "end", {"error": error})
        if run.journal.unwritten:
            self.warn(f"end of {folder}", f"{run.journal.unwritten} entries are lost")
        self._finish(run.deliveries)

    @harmless
    def evaluated(self, folder: Path, evaluation: Evaluation) -> None:
        """In the run of the fold if it is its validation, else in a run of the folder's own."""
        of_fold = folder.name == "validation" and (folder.parent / FOLDER / Journal.FILE).is_file()
        values = entries.evaluated(evaluation, folder.name if of_fold else "")
        if of_fold and folder.parent in self._trainings:
            self._tell(self._trainings[folder.parent], "evaluated", values)
        else:
            self._tell_later(folder.parent if of_fold else folder, "evaluated", values)

    @harmless
    def model_chosen(self, choice: Choice, scores: Mapping[str, float]) -> None:
        """In the run of the cross-validation whose postprocessing was decided with it."""
        self._tell_later(choice.postprocessing.parent, "chosen", entries.chosen(choice, scores))

    # --- journals --------------------------------------------------------------------------------------------------

    def _tell(self, run: Run, kind: str, values: Mapping[str, Any]) -> None:
        """Of a training; its journal is delivered while it goes on."""
        if self._append(run.journal, kind, values) and not run.is_followed:
            run.is_followed = True
            run.deliveries = self._start([run.journal.folder], follow=True)

    def _tell_later(self, folder: Path, kind: str, values: Mapping[str, Any]) -> None:
        """Of a finished run, delivered in the background by one process at a time for each destination."""
        journal = Journal(folder / FOLDER)
        if not self.options.destinations or not self._append(journal, kind, values):
            return
        self._at_exit()
        if journal.folder not in self._waiting:
            self._waiting.append(journal.folder)
        if all(delivery.is_over for delivery in self._others):
            self._start_others()

    def _append(self, journal: Journal, kind: str, values: Mapping[str, Any]) -> bool:
        try:
            journal.append(kind, **values)
        except OSError as error:
            self.warn(str(journal.folder), f"the journal cannot be written: {error}")
            return False
        return True

    # --- delivery --------------------------------------------------------------------------------------------------

    @harmless
    def finish(self) -> None:
        """Deliver what waits; at the end of the program."""
        self._ending = True
        trainings = [delivery for run in self._trainings.values() for delivery in run.deliveries]
        self._trainings.clear()
        if self._waiting:
            self._finish(self._others)
            self._start_others()
        self._finish([*trainings, *self._others])
        self._others = []

    def push(self, folders: Sequence[Path]) -> list[tuple[str, str]]:
        """Deliver what is not yet delivered, however long it takes; (destination, problem) of each that failed.

        Args:
            folders: `tracking`.
        """
        deliveries = self._start(folders, follow=False)
        for delivery in deliveries:
            delivery.process.wait()
        return [(delivery.destination, delivery.problem()) for delivery in deliveries if delivery.problem()]

    def _start_others(self) -> None:
        self._look(self._others)
        self._others = self._start(self._waiting, follow=False)
        self._waiting = []

    def _start(self, folders: Sequence[Path], follow: bool) -> list[Delivery]:
        """Processes that deliver; of those that cannot be started there is a warning."""
        started = []
        for destination in self.options.destinations:
            try:
                started.append(Delivery.start(self.options, destination, list(folders), follow))
            except OSError as error:
                self.warn(destination, str(error))
        return started

    def _look(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            problem = delivery.problem()
            if problem:
                folders = " ".join(str(folder.parent) for folder in delivery.folders)
                self.warn(delivery.destination, f"{problem} Nothing is lost; later: segplug track push {folders}")

    def _finish(self, deliveries: Sequence[Delivery]) -> None:
        now = time.monotonic()
        for delivery in deliveries:
            delivery.wait(now + self.options.patience, now + min(FAILING, self.options.patience))
        self._look(deliveries)

    def warn(self, what: str, problem: str) -> None:
        """Once for each destination or journal."""
        if what in self._warned:
            return
        self._warned.add(what)
        text = f"tracking by {what} fails: {problem}"
        if self._ending:  # nobody would catch it or make it short
            sys.stderr.write(f"warning: {text}\n")
        else:
            warnings.warn(text, RuntimeWarning, stacklevel=4)

    def _at_exit(self) -> None:
        if not hasattr(self, "_process"):
            self._process = os.getpid()
            atexit.register(lambda: self.finish() if os.getpid() == self._process else None)  # not in forks
