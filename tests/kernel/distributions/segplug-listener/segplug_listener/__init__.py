"""Writes down what happens, and fails at one event."""

from __future__ import annotations

from pathlib import Path

from segplug import hookimpl


class Listener:
    """The hooks as static methods: an entry point may name an object, too."""

    @staticmethod
    @hookimpl
    def segplug_stage_started(stage: str, subject: str) -> None:
        with Path("events.txt").open("a") as file:
            file.write(f"started {stage} {subject}\n")

    @staticmethod
    @hookimpl
    def segplug_stage_finished(stage: str, error: str) -> None:
        with Path("events.txt").open("a") as file:
            file.write(f"finished {stage} {error or 'well'}\n")

    @staticmethod
    @hookimpl
    def segplug_stage_progress(done: int) -> None:
        raise RuntimeError(f"the tracking server is gone at step {done}")
