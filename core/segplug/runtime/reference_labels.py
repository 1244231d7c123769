"""Copies of the training label maps beside the preprocessed cases (`gt_segmentations`, as nnU-Net has them)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from segplug.model import Case
from segplug.runtime.files import replacing


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
        status = source.stat()
        with replacing(copy) as partial:
            shutil.copyfile(source, partial)
            os.utime(partial, ns=(status.st_atime_ns, status.st_mtime_ns))


def _references(case: Case, folder: Path, ending: str) -> list[tuple[Path, Path]]:
    if case.label is None:
        return []
    pairs = [(case.label, folder / f"{case.name}{ending}")]
    beside = case.label.with_name(f"{case.label.name.removesuffix(ending)}.json")
    if beside.is_file():
        pairs.append((beside, folder / f"{case.name}.json"))
    return pairs


def _same_file(source: Path, copy: Path) -> bool:
    if not copy.is_file():
        return False
    one, other = source.stat(), copy.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
