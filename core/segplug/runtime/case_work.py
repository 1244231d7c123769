"""One function over many cases, in the workers, with what went wrong told for all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from segplug.errors import DataError, PluginError, SegplugError
from segplug.protocols import Executor
from segplug.runtime.kept_memory import give_back_freed_memory
from segplug.runtime.limited_work import limited_executor, plan_cases
from segplug.runtime.project import Project

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Needs:
    """What work takes at most.

    Args:
        bytes: per case.
        kept: bytes that the results take where they are collected.
        what: is done with a case, for messages.
    """

    bytes: Mapping[str, int]
    what: str
    kept: int = 0


def map_cases(
    project: Project,
    stage: str,
    subject: str,
    work: Callable[[T], R],
    cases: Mapping[str, T],
    *,
    failed: str,
    executor: Executor | None = None,
) -> dict[str, R]:
    """What `work` returns for each case, in the order of `cases`; tells the event hooks of the stage and its steps.

    Args:
        work: importable by name, or a `functools.partial` of such a one; runs in a worker.
        cases: name -> item.
        failed: what became of a case with an error, as "not ensembled".
        executor: to run in; None for the project's.

    Raises:
        DataError: cases failed; all of them are listed, after the others are done.
    """
    found: dict[str, R] = {}
    with project.stage(stage, subject, len(cases)):
        wrong = each_case(project, stage, work, cases, found.__setitem__, executor=executor)
        raise_wrong(wrong, f"{len(wrong)} of {len(cases)} cases {failed}")
    return {name: found[name] for name in cases}


def each_case(
    project: Project,
    stage: str,
    work: Callable[[T], R],
    cases: Mapping[str, T],
    take: Callable[[str, R], None],
    *,
    tolerated: tuple[type[BaseException], ...] = (SegplugError,),
    done: int = 0,
    total: int | None = None,
    executor: Executor | None = None,
    needs: Needs | None = None,
) -> dict[str, BaseException]:
    """Run `work` on every case and hand what it returns to `take(name, value)`, in the order in which cases end.

    Args:
        work: importable by name, or a `functools.partial` of such a one; runs in a worker.
        cases: name -> item.
        tolerated: errors of a case that do not stop the others; any other is raised at once.
        done, total: what the progress starts from, and counts to, if not from none to these cases.
        executor: to run in; None for the project's.
        needs: memory, for the project's limit if it has one: as many cases are worked on at once as there is room for.

    Raises:
        DataError: there is no room for a case even alone; nothing was done.

    Returns:
        The tolerated errors, by case in the order of `cases`.
    """
    wrong: dict[str, BaseException] = {}
    total = len(cases) if total is None else total

    def run(executor: Executor, function: Callable[[T], R], names: list[str]) -> None:
        nonlocal done
        for outcome in executor.map(function, [cases[name] for name in names]):
            name = names[outcome.index]
            if outcome.error is None:
                take(name, outcome.value)  # type: ignore[arg-type]  # None only if R allows it
            elif isinstance(outcome.error, tolerated):
                wrong[name] = outcome.error
            else:
                raise outcome.error
            done += 1
            project.progress(stage, name, done, total)

    if needs is None or not project.memory:
        run(executor or project.executor, work, list(cases))
    else:
        known = {name: needs.bytes[name] for name in cases}
        for count, names in plan_cases(project, known, needs.kept, needs.what).items():
            with limited_executor(project, count) as own:
                run(own, partial(leaving_nothing, work), names)
    return {name: wrong[name] for name in cases if name in wrong}


def leaving_nothing(work: Callable[[T], R], item: T) -> R:
    """What the work returns; memory that it had goes back to the system."""
    try:
        return work(item)
    finally:
        give_back_freed_memory()


def raise_wrong(wrong: Mapping[str, BaseException], what: str) -> None:
    """Raise one `DataError`, `what` and a line for each case; return if there is none.

    Raises:
        PluginError: it is one and the same for several cases, whose data have no part in it.
    """
    if len(wrong) > 1 and len({(type(error), str(error)) for error in wrong.values()}) == 1:
        first = next(iter(wrong.values()))
        if isinstance(first, PluginError):
            raise first
    if wrong:
        lines = "\n".join(f"  {name}: {error}" for name, error in wrong.items())
        raise DataError(f"{what}:\n{lines}")
