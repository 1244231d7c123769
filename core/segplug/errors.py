"""Errors a user can do something about.

Every message names what was found, where (file, case), what was expected and what to do. The command line prints
them without a traceback; anything that is not a `SegplugError` is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SegplugError(Exception):
    """Something failed that the user can mend. Exit code 1."""

    exit_code = 1


class UsageError(SegplugError):
    """The call itself is wrong: an unknown name, option or combination. Exit code 2."""

    exit_code = 2


class DataError(SegplugError):
    """A file or case is not what it has to be."""


class PluginError(SegplugError):
    """A plugin is missing, broken, ambiguous or returned something it must not."""


class WrongReferenceError(PluginError):
    """A component that does not exist was asked for, or with options that it does not take.

    Where the user wrote the name on the command line or in the settings, it becomes a `UsageError`
    (`segplug.runtime.user_choice`); where a file has it, such as a plan, the file is at fault and the exit code 1.

    Args:
        missing: kind and name of the component that does not exist; None if its options are wrong.
    """

    def __init__(self, text: str, missing: tuple[str, str] | None = None) -> None:
        super().__init__(text)
        self.missing = missing


class CheckpointError(SegplugError):
    """A checkpoint or model folder cannot be used as it is."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The part of a message about an unknown name that tells the nearest known one; empty if none is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
