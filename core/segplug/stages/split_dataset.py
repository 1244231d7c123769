"""Set training cases of a raw data set aside for testing, and take them back."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segplug.errors import DataError, UsageError
from segplug.model import Case, RawDataset, Split
from segplug.runtime.case_groups import group_cases
from segplug.runtime.files import read_json, write_json
from segplug.runtime.folder_lock import working_in
from segplug.runtime.new_dataset import making_dataset, new_dataset_folder, take_file
from segplug.runtime.project import Project
from segplug.runtime.randomness import generator
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.splits import FILE_NAME, read_splits, write_splits
from segplug.runtime.wording import counted, listed

STAGE = "test split"
SEED = 12345
RECORD = "test_split.json"
"""In the data set: which cases were set aside, how they were drawn, and where every file came from."""

_MOVING, _DONE, _RETURNING = "moving", "done", "returning"


@dataclass(frozen=True)
class DatasetSplit:
    """How a data set was divided.

    Args:
        folder: of the data set that now has test cases.
        training, test: case names.
        groups: of each case, if they were asked for.
    """

    folder: Path
    training: tuple[str, ...]
    test: tuple[str, ...]
    groups: Mapping[str, str]


def split_dataset(
    project: Project,
    dataset: str | int | Path,
    test: float,
    *,
    seed: int = SEED,
    group: str | None = None,
    to: str | int | Path | None = None,
    link: bool = False,
) -> DatasetSplit:
    """Set training cases aside as test cases: from imagesTr and labelsTr to imagesTs and labelsTs.

    Without `to`, files of the data set itself are moved, after `test_split.json` says which. An interrupted call is
    finished by the same call again, and `undo_split` moves all of them back. With `to`, a new data set is made and the
    old one stays as it is.

    Args:
        dataset: id, name or path of a raw data set.
        test: share of the cases (0.2), or from 1 on their number.
        seed: of the drawing; the same cases are drawn for the same seed, names and groups.
        group: cases that stay together; see `segplug.runtime.case_groups.group_cases`. Groups are drawn while that
            brings the number of test cases closer to what was asked for.
        to: name, id or path of the new data set.
        link: with `to`: hard links instead of copies.

    Raises:
        UsageError: it is split already, models or folds exist that know the cases, or the number makes no sense.
        DataError: the data set is not sound, or cases have no group.
    """
    folder = project.workspace.raw_folder(dataset)
    if link and to is None:
        raise UsageError("--link: files are moved within a data set; it is for --to")
    record = folder / RECORD
    if record.is_file() and to is None:
        return _finish(project, folder, record, test, seed, group)
    found = load_dataset(folder)
    names = sorted(found.cases)
    groups = {} if group is None else group_cases(names, group)
    chosen = draw_test_cases(names, test, seed=seed, groups=groups)
    made = DatasetSplit(folder, tuple(n for n in names if n not in chosen), tuple(sorted(chosen)), groups)
    drawn = {"test": test, "seed": seed, "group": group}
    if to is not None:
        return _write_new(project, found, made, new_dataset_folder(project.workspace, folder, to), drawn, link)
    _check_unused(project, found, made)
    moves = _moves(found, made.test)
    _check_free(folder, moves)
    content = {
        **drawn,
        "state": _MOVING,
        "cases": list(made.test),
        "groups": {name: groups[name] for name in made.test} if groups else {},
        "numTraining": found.description.raw.get("numTraining"),
        "moved": moves,
    }
    with working_in(folder):
        write_json(record, content)
        _move(project, folder, content, back=False)
    return made


def undo_split(project: Project, dataset: str | int | Path) -> DatasetSplit:
    """Move the test cases of `split_dataset` back, and remove its record.

    Raises:
        UsageError: the data set was not split, or it was made by splitting another one.
        DataError: a file is neither where it was nor where it was moved to, or at both places.
    """
    folder = project.workspace.raw_folder(dataset)
    record = folder / RECORD
    if not record.is_file():
        raise UsageError(f"{folder}: there is no {RECORD}: this data set was not split, and there is nothing to undo")
    content = _read(record)
    if "from" in content:
        raise UsageError(f"{folder}: was made from {content['from']}, which still has all cases. Remove it instead")
    with working_in(folder):
        write_json(record, {**content, "state": _RETURNING})
        _move(project, folder, content, back=True)
        record.unlink()
    return DatasetSplit(folder, tuple(sorted(load_dataset(folder).cases)), (), {})


def draw_test_cases(cases: Sequence[str], test: float, *, seed: int, groups: Mapping[str, str]) -> frozenset[str]:
    """Draw cases for testing, group by group; a pure function of its arguments.

    Raises:
        UsageError: no case would be left on one side.
    """
    names = sorted(cases)
    if not math.isfinite(test) or test <= 0 or (test >= 1 and test != int(test)):
        raise UsageError(f"--test {test:g}: expected a share between 0 and 1, or a number of cases")
    wanted = round(test * len(names)) if test < 1 else int(test)
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(groups.get(name, name), []).append(name)
    order = sorted(members)
    generator(seed, STAGE).shuffle(order)
    chosen: list[str] = []
    for group in order:
        size = len(members[group])
        if abs(len(chosen) + size - wanted) < abs(len(chosen) - wanted):
            chosen += members[group]
    if not chosen or len(chosen) == len(names):
        raise UsageError(
            f"--test {test:g}: {len(chosen)} of {counted(len(names), 'case')} in {counted(len(members), 'group')} "
            "would be for testing; expected at least one on either side. Choose another share"
        )
    return frozenset(chosen)


def _finish(project: Project, folder: Path, record: Path, test: float, seed: int, group: str | None) -> DatasetSplit:
    """Go on with a split that was interrupted; one that is finished is left alone."""
    content = _read(record)
    if content.get("state") == _MOVING and (content["test"], content["seed"], content["group"]) == (test, seed, group):
        with working_in(folder):
            _move(project, folder, content, back=False)
        names = tuple(sorted(load_dataset(folder).cases))
        return DatasetSplit(folder, names, tuple(content["cases"]), content["groups"])
    state = "split already" if content.get("state") == _DONE else f"in between ({content.get('state')})"
    raise UsageError(
        f"{folder}: is {state}: {record} names {counted(len(content['cases']), 'test case')}. To draw others, take "
        f"these back first: segplug dataset split {folder.name} --undo"
    )


def _read(record: Path) -> dict[str, Any]:
    content = read_json(record)
    keys = {"cases", "test", "seed", "group", "groups"}
    moved = content.get("moved", {}) if isinstance(content, dict) else None
    if moved is None or not keys <= set(content) or not all(isinstance(t, str) for t in moved.values()):
        raise DataError(f"{record}: found a file of another kind; expected what dataset split wrote. Restore it")
    return dict(content)


def _moves(dataset: RawDataset, test: Iterable[str]) -> dict[str, str]:
    """Where each file is and where it goes, relative to the data set."""
    if "dataset" in dataset.description.raw:
        raise UsageError(
            f"{dataset.folder / 'dataset.json'}: lists its files one by one ('dataset'), so that no folder tells what "
            "they are for. Make a new data set with --to"
        )
    moves = {}
    for name in test:
        for source, target in _placed(dataset.cases[name], "Ts", dataset.description.file_ending):
            moves[source.relative_to(dataset.folder).as_posix()] = target
    return moves


def _placed(case: Case, part: str, ending: str) -> list[tuple[Path, str]]:
    """Files of a case, and where they belong: images and label map, and the spacing files of TIFF stacks."""
    files = [(path, f"images{part}/{case.name}_{c:04d}{ending}") for c, path in enumerate(case.images)]
    files += [] if case.label is None else [(case.label, f"labels{part}/{case.name}{ending}")]
    beside: dict[str, Path] = {}
    for path, target in files:
        spacing = path.with_name(f"{case.name}.json")
        if spacing.is_file():
            beside[f"{target.partition('/')[0]}/{case.name}.json"] = spacing
    return files + [(source, target) for target, source in beside.items()]


def _check_unused(project: Project, dataset: RawDataset, made: DatasetSplit) -> None:
    """Nothing may have been trained on, or planned for, the cases that become test cases."""
    workspace, name = project.workspace, dataset.folder.name
    places = [dataset.folder / FILE_NAME]
    places += [] if workspace.preprocessed is None else [workspace.splits_file(name)]
    places += [] if workspace.results is None else [workspace.results_folder(name)]
    found = [str(place) for place in places if place.exists()]
    if found:
        raise UsageError(
            f"{name}: {' and '.join(found)} knows the cases that would become test cases ({listed(list(made.test))}): "
            "models may be trained on them. Make a new data set with --to, or remove this first"
        )


def _check_free(folder: Path, moves: Mapping[str, str]) -> None:
    taken = [target for target in moves.values() if (folder / target).exists()]
    if taken:
        raise DataError(
            f"{folder}: found {listed(taken)} already; expected no test case named as a training case. Rename one"
        )


def _move(project: Project, folder: Path, content: Mapping[str, Any], *, back: bool) -> None:
    """Move every file that is not moved yet, then say so in dataset.json and the record. May be repeated."""
    moves = [(t, s) if back else (s, t) for s, t in content["moved"].items()]
    for source, target in moves:
        there = ((folder / source).exists(), (folder / target).exists())
        if there not in ((True, False), (False, True)):
            found = "both places" if there[0] else "neither place"
            raise DataError(
                f"{folder}: {source} -> {target}: found a file at {found}; expected it at one. Restore it, or take one "
                "away, and call again"
            )
    with project.stage(STAGE, folder.name, len(moves)):
        for done, (source, target) in enumerate(moves, start=1):
            (folder / target).parent.mkdir(exist_ok=True)
            if (folder / source).exists():
                os.rename(folder / source, folder / target)
            project.progress(STAGE, Path(source).name, done, len(moves))
        for part in {Path(source).parent for source, _ in moves} if back else ():
            if not any((folder / part).iterdir()):
                (folder / part).rmdir()
        description = read_json(folder / "dataset.json")
        if content["numTraining"] is not None:
            left = content["numTraining"] if back else content["numTraining"] - len(content["cases"])
            write_json(folder / "dataset.json", {**description, "numTraining": left})
        if not back:
            write_json(folder / RECORD, {**content, "state": _DONE})


def _write_new(
    project: Project, dataset: RawDataset, made: DatasetSplit, folder: Path, drawn: Mapping[str, Any], link: bool
) -> DatasetSplit:
    ending = dataset.description.file_ending
    with making_dataset(folder) as new:
        for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (new / part).mkdir()
        with project.stage(STAGE, folder.name, len(dataset.cases)):
            for done, (name, case) in enumerate(dataset.cases.items(), start=1):
                for source, target in _placed(case, "Ts" if name in made.test else "Tr", ending):
                    take_file(source, new / target, link=link)
                project.progress(STAGE, name, done, len(dataset.cases))
        _write_descriptions(dataset, made, new, drawn)
    return DatasetSplit(folder, made.training, made.test, made.groups)


def _write_descriptions(dataset: RawDataset, made: DatasetSplit, new: Path, drawn: Mapping[str, Any]) -> None:
    kept = {k: v for k, v in dataset.description.raw.items() if k != "dataset"}
    write_json(new / "dataset.json", {**kept, "numTraining": len(made.training)})
    groups = {name: made.groups[name] for name in made.test} if made.groups else {}
    record = {**drawn, "state": _DONE, "from": dataset.folder.name, "cases": list(made.test), "groups": groups}
    write_json(new / RECORD, record)
    if (dataset.folder / FILE_NAME).is_file():  # folds stay what they were, without the test cases
        test = set(made.test)
        kept_folds = [
            Split(tuple(n for n in s.train if n not in test), tuple(n for n in s.val if n not in test))
            for s in read_splits(dataset.folder / FILE_NAME)
        ]
        write_splits(new / FILE_NAME, kept_folds)
