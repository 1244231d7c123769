"""One function over many cases, in the workers, with what went wrong told for all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from segplug.errors import DataError, SegplugError
from segplug.runtime.project import Project

T = TypeVar("T")
R = TypeVar("R")


def map_cases(
    project: Project, stage: str, subject: str, work: Callable[[T], R], cases: Mapping[str, T], *, failed: str
) -> dict[str, R]:
    """What `work` returns for each case, in the order of `cases`; tells the event hooks of the stage and its steps.

    Args:
        work: importable by name, or a `functools.partial` of such a one; runs in a worker.
        cases: name -> item.
        failed: what became of a case with an error, as "not ensembled".

    Raises:
        DataError: cases failed; all of them are listed, after the others are done.
    """
    names = list(cases)
    found: dict[int, R] = {}
    wrong: dict[int, SegplugError] = {}
    with project.stage(stage, subject, len(cases)):
        for done, outcome in enumerate(project.executor.map(work, list(cases.values())), start=1):
            if isinstance(outcome.error, SegplugError):
                wrong[outcome.index] = outcome.error
            elif outcome.error is not None:
                raise outcome.error
            else:
                found[outcome.index] = outcome.value  # type: ignore[assignment]  # None only if R allows it
            project.progress(stage, names[outcome.index], done, len(cases))
        if wrong:
            lines = "\n".join(f"  {names[index]}: {error}" for index, error in sorted(wrong.items()))
            raise DataError(f"{len(wrong)} of {len(cases)} cases {failed}:\n{lines}")
    return {name: found[index] for index, name in enumerate(names)}
