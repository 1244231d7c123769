"""Preprocess the training cases of a data set into a store per data identifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from segplug.errors import DataError, SegplugError
from segplug.model import Case, Configuration, Plan, RawDataset
from segplug.protocols import Store
from segplug.runtime.case_preprocessing import (
    CaseWork,
    StoreTarget,
    is_current,
    preprocess_case,
    preprocessing_settings,
)
from segplug.runtime.case_work import Needs, each_case
from segplug.runtime.folder_lock import working_in
from segplug.runtime.plan_components import require_installed
from segplug.runtime.planned import find_configuration, find_plan
from segplug.runtime.preparation_memory import case_sizes, to_preprocess
from segplug.runtime.preprocessed_cases import STORE
from segplug.runtime.preprocessing import Preprocessing
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.reference_labels import copy_if_changed
from segplug.runtime.wording import counted

STAGE = "preprocess"


@dataclass(frozen=True)
class Preprocessed:
    """What a run of the stage did.

    Args:
        dataset, plans_name: of the run.
        kept: per data identifier, cases that were whole and current.
        made: per data identifier, case -> why it was made ("new", or what had changed).
    """

    dataset: str
    plans_name: str
    kept: Mapping[str, Sequence[str]]
    made: Mapping[str, Mapping[str, str]]

    def summary(self) -> str:
        """One line per data identifier."""
        return "\n".join(f"{name}: {_counted(self.made[name], self.kept[name])}" for name in self.made)


@dataclass(frozen=True)
class _Record:
    """Outcome of the run so far."""

    kept: dict[str, list[str]]
    made: dict[str, dict[str, str]]
    wrong: dict[str, str] = field(default_factory=dict)


def preprocess(
    project: Project,
    dataset: str | int | Path,
    *,
    configurations: Sequence[str] | None = None,
    plans_name: str | None = None,
) -> Preprocessed:
    """Preprocess every training case for the configurations of a plan, and copy label maps to `gt_segmentations`.

    Configurations that share a data identifier share its cases, and a case is read once for all of them. Cases that
    are whole and current (same files, same settings) are kept. A run may be killed at any moment: calling again goes
    on. What the store holds beyond the data set's cases is left alone.

    Args:
        dataset: id, name or path of a raw data set that was planned.
        configurations: names; None for all of the plan.
        plans_name: None for `nnUNetPlans`, or the only plans there are.

    Raises:
        DataError: no such plan, or cases that cannot be preprocessed: all of them are named, the others are kept.
        UsageError: no such data set or configuration, or another run is at work there.
        PluginError: a component of the plan is missing.
    """
    raw = load_dataset(project.workspace.raw_folder(dataset))
    plan = find_plan(project.workspace, raw.name, plans_name)
    chosen = [configuration.name for configuration in _chosen(plan, configurations)]
    require_installed(project.kernel.registry, plan, chosen, ("readers", "normalizers", "resamplers"))
    work = _prepare(project, raw, plan, configurations)
    names = [target.identifier for target in work.targets]
    done = _Record({name: [] for name in names}, {name: {} for name in names})
    with project.stage(STAGE, f"{raw.name} ({', '.join(names)})", len(raw.cases)), ExitStack() as locks:
        for folder in (work.references, *(project.workspace.store_folder(raw.name, name) for name in names)):
            locks.enter_context(working_in(folder))
        copy_if_changed(raw.folder / "dataset.json", work.references.parent / "dataset.json")
        waiting = {name: case for name, case in raw.cases.items() if not is_current(case, work)}
        if len(waiting) < len(raw.cases):
            current = sorted(raw.cases.keys() - waiting.keys())
            for kept in done.kept.values():
                kept.extend(current)
            project.progress(STAGE, f"{counted(len(current), 'case')} kept", len(current), len(raw.cases))
        needs = None
        if project.memory:
            sizes = case_sizes(project.kernel.registry, plan.reader, waiting)
            steps = [target.steps for target in work.targets]
            taken = {name: 0 if size is None else to_preprocess(size, steps) for name, size in sizes.items()}
            needs = Needs(taken, "preprocessing it")
        _run(project, waiting, work, done, len(raw.cases), needs)
    result = Preprocessed(raw.name, plan.plans_name, done.kept, done.made)
    if done.wrong:
        lines = "\n".join(f"  {error}" for _, error in sorted(done.wrong.items()))
        raise DataError(
            f"data set {raw.name}: {len(done.wrong)} of {len(raw.cases)} cases cannot be preprocessed:\n{lines}\n"
            f"The others are done: {', '.join(result.summary().splitlines())}. `segplug dataset verify {raw.name}` "
            "lists all that is wrong with the data"
        )
    return result


def _prepare(project: Project, raw: RawDataset, plan: Plan, wanted: Sequence[str] | None) -> CaseWork:
    registry = project.kernel.registry
    targets: dict[str, tuple[str, StoreTarget]] = {}
    for configuration in _chosen(plan, wanted):
        name = configuration.data_identifier
        settings = preprocessing_settings(plan, configuration, raw.description, registry)
        if name in targets:
            other, target = targets[name]
            if target.settings != settings:
                differ = ", ".join(key for key in settings if settings[key] != target.settings[key])
                raise DataError(
                    f"plan {plan.plans_name}: configurations {other!r} and {configuration.name!r} share the data "
                    f"identifier {name!r}, but differ in {differ}. Give one of them a data_identifier of its own"
                )
            continue
        folder = project.workspace.store_folder(raw.name, name)
        store: Store = registry.build("stores", STORE)(folder, configuration.patch_size)
        steps = Preprocessing.of(plan, configuration, registry)
        targets[name] = configuration.name, StoreTarget(name, store, steps, settings)
    return CaseWork(
        registry.build("readers", plan.reader),
        raw.description,
        tuple(target for _, target in targets.values()),
        project.workspace.reference_folder(raw.name),
    )


def _chosen(plan: Plan, wanted: Sequence[str] | None) -> Iterator[Configuration]:
    for name in plan.configurations if wanted is None else wanted:
        yield find_configuration(plan, name)


def _run(
    project: Project, cases: Mapping[str, Case], work: CaseWork, done: _Record, total: int, needs: Needs | None
) -> None:
    def take(case: str, made: Mapping[str, str]) -> None:
        for target in work.targets:
            if target.identifier in made:
                done.made[target.identifier][case] = made[target.identifier]
            else:
                done.kept[target.identifier].append(case)

    wrong = each_case(
        project,
        STAGE,
        partial(preprocess_case, work=work),
        cases,
        take,
        tolerated=(SegplugError, MemoryError),
        done=total - len(cases),
        total=total,
        needs=needs,
    )
    for case, error in wrong.items():
        text = (
            "memory ran out. Free some, or use --max-memory or fewer --workers"
            if isinstance(error, MemoryError)
            else str(error)
        )
        told = case in text  # readers name the file alone
        done.wrong[case] = text if told else f"case {case}: {text}"


def _counted(made: Mapping[str, str], kept: Sequence[str]) -> str:
    reasons: dict[str, int] = {}
    for why in made.values():
        short = "changed files" if why.endswith("has changed") else why
        reasons[short] = reasons.get(short, 0) + 1
    parts = [f"{count} made ({why})" for why, count in reasons.items()]
    return ", ".join([*parts, f"{len(kept)} kept"] if kept or not parts else parts)
