"""Memory for verifying and measuring cases within a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from segplug.model import Case
from segplug.protocols import Reader
from segplug.runtime.case_reading import read_labels
from segplug.runtime.case_work import Needs, leaving_nothing
from segplug.runtime.limited_work import limited_executor, plan_cases, shares
from segplug.runtime.preparation_memory import CaseSize, case_sizes, to_count, to_merge
from segplug.runtime.project import Project


def needs_to_measure(
    project: Project,
    reader: str,
    cases: Mapping[str, Case],
    draws: int | None,
    taken: Callable[[CaseSize], int],
    what: str,
) -> Needs | None:
    """What the cases of a data set take, for a project that has a limit of memory; None for one that has not.

    How many intensities are held depends on the foreground: where all of an image being foreground would leave room for
    fewer cases at once, the label maps are looked at first.

    Args:
        draws: from each channel of each case; None if nothing is measured.
        taken: by a case of a size.
        what: is done with it.

    Raises:
        DataError: a label map alone is too large.
        UsageError: see `case_sizes`.
    """
    if not project.memory:
        return None
    sizes = case_sizes(project.kernel.registry, reader, cases)

    def needs() -> Needs:
        known = [size for size in sizes.values() if size is not None]
        kept = 0 if draws is None else to_merge(known, draws)
        return Needs({name: 0 if size is None else taken(size) for name, size in sizes.items()}, what, kept)

    first = needs()
    most = max(project.workers, 1)
    left = project.memory.left() - first.kept
    if draws is None or set(shares(first.bytes, left, most)) <= {most}:
        return first
    known = {name: size for name, size in sizes.items() if size is not None}
    for name, voxels in _foreground(project, reader, {name: cases[name] for name in known}, known).items():
        sizes[name] = replace(known[name], counted=voxels)
    return needs()


def count_foreground(case: Case, reader: Reader) -> int:
    """Voxels with a label above 0; what a worker does.

    Raises:
        DataError: the label map cannot be read.
    """
    assert case.label is not None
    return int(np.count_nonzero(read_labels(reader, case.label).array > 0))


def _foreground(
    project: Project, reader_name: str, cases: Mapping[str, Case], sizes: Mapping[str, CaseSize]
) -> dict[str, int]:
    """Per case; those that cannot be counted are left out: what is wrong with them will be told."""
    reader: Reader = project.kernel.registry.build("readers", reader_name)
    work = partial(leaving_nothing, partial(count_foreground, reader=reader))
    found: dict[str, int] = {}
    bytes_ = {name: to_count(size) for name, size in sizes.items()}
    for count, names in plan_cases(project, bytes_, 0, "reading its label map").items():
        with limited_executor(project, count) as executor:
            for outcome in executor.map(work, [cases[name] for name in names]):
                if outcome.value is not None:
                    found[names[outcome.index]] = outcome.value
    return found
