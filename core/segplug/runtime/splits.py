"""Which cases a fold trains on: splits_final.json, made where it is missing.

The file is nnU-Net's: a list of folds, each with the names of its training and validation cases.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segplug.errors import DataError, PluginError, UsageError
from segplug.model import Split
from segplug.runtime.files import read_json, replacing, write_json
from segplug.runtime.project import Project
from segplug.runtime.wording import counted

ALL = "all"
"""The fold that trains, and validates, on every case."""

RANDOM_SEED = 12345
"""With the fold's number added, the seed of the random split of a fold that the file does not have (nnU-Net)."""

TRAIN_SHARE = 0.8
FILE_NAME = "splits_final.json"


def find_split(
    project: Project, dataset: str, cases: Sequence[str], fold: int | str, *, splitter: str = "kfold"
) -> Split:
    """The cases of a fold. splits_final.json is made with the splitter if it is not there.

    A fold past the end of the file is a random 80:20 split, seeded by its number (nnU-Net's rule).

    Args:
        dataset: the data set's name.
        cases: all cases that there are.
        fold: number or `all`.

    Raises:
        DataError: there are no cases, the file is damaged, or it names cases that do not exist.
        UsageError: the fold is neither a number from 0 on nor `all`, or a random split would be empty.
        PluginError: the splitter made no folds.
    """
    names = sorted(cases)
    if not names:  # a file of no folds would have to be removed by hand
        raise DataError(f"{dataset}: there are no preprocessed cases to split. Run: segplug preprocess {dataset}")
    if fold == ALL:
        return Split(tuple(names), tuple(names))
    if not isinstance(fold, int) or fold < 0:
        raise UsageError(f"fold {fold!r}: expected a number from 0 on, or all")
    file = project.workspace.splits_file(dataset)
    if not file.is_file():
        make: Callable[[Sequence[str]], list[Split]] = project.kernel.registry.build("splitters", splitter)
        write_splits(file, as_splits(make(names), splitter))
    splits = read_splits(file)
    if fold >= len(splits):
        return random_split(names, fold)
    split = splits[fold]
    check_split(file, fold, split, names)
    return split


def check_split(file: Path, fold: int, split: Split, names: Collection[str]) -> None:
    """Refuse what cannot be trained, and warn of what trains on its validation cases.

    Raises:
        DataError: the fold names cases that are not among `names`.
    """
    unknown = sorted({*split.train, *split.val} - set(names))
    if unknown:
        raise DataError(
            f"{file}: fold {fold} names {counted(len(unknown), 'case')} not there: {', '.join(unknown[:10])}"
            f"{' and more' if len(unknown) > 10 else ''}. Correct the file, or preprocess these cases"
        )
    both = sorted(set(split.train) & set(split.val))
    if both:
        warnings.warn(
            f"{file}: fold {fold} trains on {len(both)} of its validation cases ({', '.join(both[:5])}): its "
            "validation says nothing of new cases",
            stacklevel=2,
        )


def random_split(cases: Sequence[str], fold: int) -> Split:
    """A random 80:20 split, the same for the same fold number: nnU-Net's, for folds past the file.

    Raises:
        UsageError: there are too few cases to split.
    """
    names = sorted(cases)
    random = np.random.RandomState(RANDOM_SEED + fold)  # a newer generator would draw other splits than nnU-Net
    chosen = random.choice(len(names), int(len(names) * TRAIN_SHARE), replace=False).tolist()
    if not chosen:
        raise UsageError(
            f"fold {fold} is not in {FILE_NAME}, and {len(names)} case cannot be split at random. Use fold 0"
        )
    rest = sorted(set(range(len(names))) - set(chosen))
    return Split(tuple(names[i] for i in chosen), tuple(names[i] for i in rest))


def read_splits(file: Path) -> list[Split]:
    """Read splits_final.json.

    Raises:
        DataError: it is missing, no JSON, or of another form.
    """
    raw = read_json(file)
    try:
        splits = [Split(_names(fold["train"]), _names(fold["val"])) for fold in raw]
    except (KeyError, TypeError):
        splits = []
    if not splits or not isinstance(raw, list):
        form = '[{"train": ["CASE", ...], "val": ["CASE", ...]}, ...]'
        raise DataError(
            f"{file}: expected {form}, at least one fold. Correct the file, or remove it to have it made anew"
        )
    return splits


def as_splits(made: Any, splitter: str) -> tuple[Split, ...]:
    """What a splitter made.

    Raises:
        PluginError: it is no folds.
    """
    found = tuple(made) if isinstance(made, Iterable) else ()
    wrong = next((fold for fold in found if not isinstance(fold, Split)), None)
    if wrong is not None or not isinstance(made, Iterable):
        what = f"a {type(made).__name__}" if wrong is None else f"a {type(wrong).__name__} as a fold"
        raise PluginError(
            f"splitters: {splitter!r} returned {what}; expected a list of segplug.model.Split(train, val)"
        )
    return found


def write_splits(file: Path, splits: Sequence[Split]) -> None:
    """Write splits_final.json, whole or not at all."""
    write_json(file, [{"train": list(s.train), "val": list(s.val)} for s in splits])


def adopt_splits(raw_folder: Path, file: Path) -> None:
    """Take over the splits_final.json of a raw data set, if it has one.

    Raises:
        DataError: there are other splits already; folds that only `file` has are fine (nnU-Net's rule).
    """
    source = raw_folder / FILE_NAME
    if not source.is_file():
        return
    given = read_splits(source)
    if not file.is_file():
        with replacing(file) as partial:
            shutil.copyfile(source, partial)
        return
    there = read_splits(file)
    for number, split in enumerate(given):
        if number >= len(there) or _sets(split) != _sets(there[number]):
            raise DataError(
                f"{source}: fold {number} is not that of {file}. Models may have been trained with the latter: remove "
                "the one that is wrong"
            )


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError
    return tuple(value)


def _sets(split: Split) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(split.train), frozenset(split.val)
