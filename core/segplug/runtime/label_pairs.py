"""References beside predictions, read when they are asked for, and worked on by all workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar, overload

from segplug.model import Labels
from segplug.protocols import Reader
from segplug.runtime.case_reading import read_labels
from segplug.runtime.project import Project

R = TypeVar("R")
Pair = tuple[Labels, Labels]


class LabelPairs(Sequence[Pair]):
    """Pairs of (reference, prediction) from files. Indexing reads one and keeps none.

    Args:
        files: paths of each pair.
    """

    def __init__(self, project: Project, reader: Reader, files: Sequence[tuple[Path, Path]]) -> None:
        self._project = project
        self._reader = reader
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> LabelPairs: ...
    def __getitem__(self, index: int | slice) -> Pair | LabelPairs:
        if isinstance(index, slice):
            return LabelPairs(self._project, self._reader, self._files[index])
        return _read(self._files[index], self._reader)

    def map(self, work: Callable[[Pair], R]) -> list[R]:
        """What `work` makes of each pair, in their order; the workers read and work side by side.

        Args:
            work: importable by name, or a `functools.partial` of such a one.

        Raises:
            DataError: a file is damaged; or what `work` raises.
        """
        found: dict[int, R] = {}
        for outcome in self._project.executor.map(partial(_work, reader=self._reader, work=work), self._files):
            if outcome.error is not None:
                raise outcome.error
            found[outcome.index] = outcome.value  # type: ignore[assignment]  # None only if R allows it
        return [found[index] for index in range(len(self._files))]


def map_pairs(pairs: Sequence[Pair], work: Callable[[Pair], R]) -> list[R]:
    """What `work` makes of each pair: by the workers if they come from files, else here."""
    if isinstance(pairs, LabelPairs):
        return pairs.map(work)
    return [work(pairs[index]) for index in range(len(pairs))]


def _work(files: tuple[Path, Path], *, reader: Reader, work: Callable[[Pair], R]) -> R:
    return work(_read(files, reader))


def _read(files: tuple[Path, Path], reader: Reader) -> Pair:
    reference, prediction = files
    return read_labels(reader, reference), read_labels(reader, prediction)
