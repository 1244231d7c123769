"""Divide the training cases of a data set into folds: splits_final.json, made on purpose rather than by the way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segplug.errors import DataError, UsageError
from segplug.kernel import Registry
from segplug.model import ComponentRef, Split
from segplug.runtime.case_groups import group_cases
from segplug.runtime.component_text import component_of_user
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.files import read_json
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import survey_dataset
from segplug.runtime.splits import FILE_NAME, adopt_splits, as_splits, check_split, read_splits, write_splits

STAGE = "split"
KFOLD, GROUPED = "kfold", "grouped_kfold"
COMMANDS = {"folds": "--folds", "seed": "--seed", "groups": "--group", "strata": "--stratify"}
"""Keywords that a splitter may take, and how the command line gives them."""


@dataclass(frozen=True)
class Folds:
    """The folds of a data set.

    Args:
        file: splits_final.json.
        kept: it was there before, and says just this.
        groups, strata: of each case, if it was asked for.
    """

    file: Path
    splits: tuple[Split, ...]
    kept: bool
    groups: Mapping[str, str] = field(default_factory=dict)
    strata: Mapping[str, str] = field(default_factory=dict)


def split_folds(
    project: Project,
    dataset: str | int | Path,
    *,
    folds: int | None = None,
    seed: int | None = None,
    group: str | None = None,
    stratify: str | None = None,
    splitter: str | ComponentRef | None = None,
    overwrite: bool = False,
) -> Folds:
    """Make splits_final.json of a data set, before its first training makes nnU-Net's.

    Args:
        dataset: id, name or path of a data set, raw or preprocessed.
        folds, seed: None for nnU-Net's five and 12345.
        group: cases that must stay together: a regular expression on their names, or `FILE.csv:COLUMN`; see
            `segplug.runtime.case_groups.group_cases`.
        stratify: what each fold should have its share of, given likewise.
        splitter: component, or its text `NAME,option=VALUE,...`; None for `kfold`, nnU-Net's, or with groups or strata
            `grouped_kfold`.
        overwrite: replace other folds that are there.

    Raises:
        UsageError: no such data set or splitter, an option that it does not take, a wrong number of folds; or other
            folds are there.
        DataError: there are no cases, some have no group or stratum, or the splitter left out or doubled cases.
        PluginError: the splitter cannot be loaded, or returned no folds.
    """
    name = project.workspace.dataset_name(dataset)
    file = project.workspace.splits_file(name)
    cases = _case_names(project, dataset, name)
    if folds is not None and folds < 2:
        raise UsageError(f"--folds {folds}: expected 2 or more")
    groups = {} if group is None else group_cases(cases, group)
    strata = {} if stratify is None else _strata(cases, stratify)
    options: dict[str, Any] = {"folds": folds, "seed": seed, "groups": groups, "strata": strata}
    given = {key: value for key, value in options.items() if value not in (None, {})}
    asked = given or splitter is not None
    raw = _raw_folder(project, dataset)
    kept = file.is_file()
    if not asked and not kept and raw is not None:
        adopt_splits(raw, file)
    if not asked and file.is_file():
        there = tuple(read_splits(file))
        for number, split in enumerate(there):  # it may have been edited
            check_split(file, number, split, cases)
        return Folds(file, there, kept=kept)
    reference = splitter or (GROUPED if groups or strata else KFOLD)
    reference = component_of_user(project.kernel.registry, "splitters", reference, "--splitter")
    _check_wishes(project.kernel.registry, reference, given)
    with project.stage(STAGE, name):
        make: Callable[[Sequence[str]], list[Split]] = project.kernel.registry.build(
            "splitters", reference.with_options(**given)
        )
        made = as_splits(make(cases), reference.name)
        _check(made, cases, reference.name)
        if raw is not None and (raw / FILE_NAME).is_file() and tuple(read_splits(raw / FILE_NAME)) != made:
            raise UsageError(f"{raw / FILE_NAME}: the raw data set brings its own folds; remove it to make others")
        if file.is_file():
            if tuple(read_splits(file)) == made:
                return Folds(file, made, True, groups, strata)
            if not overwrite:
                raise UsageError(
                    f"{file}: other folds are there, and models may have been trained on them. To replace it, call "
                    "again with --overwrite, and train every fold anew"
                )
        write_splits(file, made)
    return Folds(file, made, False, groups, strata)


def _case_names(project: Project, dataset: str | int | Path, name: str) -> list[str]:
    raw = _raw_folder(project, dataset)
    if raw is not None:
        survey, _ = survey_dataset(raw)
        if survey is not None and survey.cases:
            return sorted(survey.cases)
    folder = project.workspace.reference_folder(name)
    description = project.workspace.preprocessed_folder(name) / "dataset.json"
    ending = parse_description(read_json(description), name, description).file_ending
    found = sorted({f.name.removesuffix(ending) for f in folder.glob(f"*{ending}") if not f.name.startswith(".")})
    if not found:
        raise DataError(f"{name}: no training cases, neither raw nor in {folder}")
    return found


def _raw_folder(project: Project, dataset: str | int | Path) -> Path | None:
    try:
        folder = project.workspace.raw_folder(dataset)
    except UsageError:  # only preprocessed data
        return None
    return folder if folder.is_dir() else None


def _strata(cases: Sequence[str], by: str) -> dict[str, str]:
    try:
        return group_cases(cases, by)
    except (UsageError, DataError) as error:
        raise type(error)(str(error).replace("--group", "--stratify")) from None


def _check_wishes(registry: Registry, splitter: ComponentRef, given: Iterable[str]) -> None:
    """Refuse what the splitter does not take, or is told twice."""
    takes = inspect.signature(registry.load(registry.find("splitters", splitter.name))).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes):
        names = set(COMMANDS)
    else:
        names = {parameter.name for parameter in takes}
    for name in given:
        if name not in names:
            others = ", ".join(option for key, option in COMMANDS.items() if key in names) or "none of its like"
            raise UsageError(
                f"{COMMANDS[name]}: splitter {splitter.name!r} takes no {name} (it has no keyword {name!r}). Of these "
                f"options it takes {others}"
            )
        if name in splitter.options:
            raise UsageError(f"{COMMANDS[name]}: --splitter gives {name} too. Leave one of them out")


def _check(splits: Sequence[Split], cases: Sequence[str], splitter: str) -> None:
    """Whatever a plugin makes: nothing unknown, and nothing trained on and validated in one fold."""
    known = set(cases)
    for number, split in enumerate(splits):
        unknown = sorted({*split.train, *split.val} - known)
        both = sorted(set(split.train) & set(split.val)) if len(cases) > 1 else []
        if unknown or both or not split.train or not split.val:
            what = f"cases that do not exist: {', '.join(map(str, unknown[:5]))}" if unknown else "no cases on one side"
            what = f"{', '.join(both[:5])} on both sides" if both else what
            raise DataError(f"splitter {splitter!r}: fold {number} has {what}. Use another splitter")
    if not splits:
        raise DataError(f"splitter {splitter!r} made no folds. Use another splitter")
