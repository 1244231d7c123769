"""Copies of the training label maps beside the preprocessed cases (`gt_segmentations`, as nnU-Net has them)."""

from __future__ import annotations

from pathlib import Path

from segplug.model import Case
from segplug.runtime.files import copy as copy_file
from segplug.runtime.files import file_state, replacing


def references_are_current(case: Case, folder: Path, ending: str) -> bool:
    """Whether the copy of a case's label map has the original's size and time of change."""
    return all(_same_file(source, copy) for source, copy in _references(case, folder, ending))


def copy_references(case: Case, folder: Path, ending: str) -> None:
    """Copy a case's label map to `folder/CASE<ending>`, and CASE.json if it stands beside it (TIFF's spacing)."""
    for source, copy in _references(case, folder, ending):
        copy_if_changed(source, copy)


def copy_if_changed(source: Path, copy: Path) -> None:
    """Copy a file and its time of change, unless the copy has the same size and time."""
    if not _same_file(source, copy):
        with replacing(copy, flushed=False) as partial:  # what a power failure cut short is copied again
            copy_file(source, partial)


def _references(case: Case, folder: Path, ending: str) -> list[tuple[Path, Path]]:
    if case.label is None:
        return []
    pairs = [(case.label, folder / f"{case.name}{ending}")]
    beside = case.label.with_name(f"{case.label.name.removesuffix(ending)}.json")
    if beside.is_file():
        pairs.append((beside, folder / f"{case.name}.json"))
    return pairs


def _same_file(source: Path, copy: Path) -> bool:
    return copy.exists() and file_state(source) == file_state(copy)
