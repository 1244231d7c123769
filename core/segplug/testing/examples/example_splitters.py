"""Folds by patient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segplug import Component, hookimpl
from segplug.model import Split
from segplug.protocols import Splitter


def by_patient(cases: Sequence[str], *, folds: int = 5, separator: str = "_") -> list[Split]:
    """Keep all cases of a patient, the part of the name before the last separator, in one fold."""
    patients = sorted({case.rpartition(separator)[0] for case in cases})
    fold_of = {patient: number % folds for number, patient in enumerate(patients)}
    of_case = {case: fold_of[case.rpartition(separator)[0]] for case in cases}
    return [
        Split(tuple(c for c in cases if of_case[c] != fold), tuple(c for c in cases if of_case[c] == fold))
        for fold in range(folds)
    ]


@hookimpl
def segplug_splitters() -> Iterator[Component[Splitter]]:
    yield Component("by_patient", f"{__name__}:by_patient", "all cases of a patient in one fold")
