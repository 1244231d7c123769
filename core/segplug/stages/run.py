"""From a raw data set to trained models: every stage in turn, keeping what is finished and unchanged."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segplug.model import ComponentRef, Evaluation, Plan, Split, TrainedFold
from segplug.protocols import Store
from segplug.runtime.cascade import in_order, previous_predictions
from segplug.runtime.evaluation import SUMMARY, read_summary
from segplug.runtime.files import read_json, value_hash, write_json
from segplug.runtime.fold_folder import set_aside
from segplug.runtime.fold_work import parse_fold
from segplug.runtime.folder_lock import working_in
from segplug.runtime.model_names import parse_model_name
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.planned import DEFAULT_PLANS, plans_names
from segplug.runtime.preprocessed_cases import STORE
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.run_checks import check_call, check_configurations, check_trainers
from segplug.runtime.run_record import FOLD_FILE, RunRecord, fold_manifest, what_changed
from segplug.runtime.splits import find_split, read_splits
from segplug.runtime.trainer_choice import ChosenTrainer, choose_trainer, folder_name
from segplug.stages.plan import STAGE as PLAN_STAGE
from segplug.stages.plan import plan as make_plan
from segplug.stages.prepare import told_as_kept, verified_fingerprint
from segplug.stages.preprocess import preprocess
from segplug.stages.select import Selection, select
from segplug.stages.train import check_training, train
from segplug.stages.validation_probabilities import Computing


@dataclass(frozen=True)
class Planning:
    """How `run` plans. Fields as for `segplug.stages.plan.plan`.

    Without a planner, plans of the name that are there are used as they are, and the default planner makes them if
    there are none. Without a name too, it is `nnUNetPlans`, or the only plans there are.
    """

    planner: str | ComponentRef | None = None
    memory_gb: float | None = None
    spacing: tuple[float, ...] | None = None
    plans_name: str | None = None


@dataclass(frozen=True)
class Training:
    """How `run` trains. Fields as for `segplug.stages.train.train`."""

    trainer: str | None = None
    overrides: tuple[str, ...] = ()
    epochs: int | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int | None = None


@dataclass(frozen=True)
class FoldResult:
    """One fold of one configuration.

    Args:
        evaluation: of its validation cases.
        kept: it was finished before this run.
    """

    configuration: str
    trained: TrainedFold
    split: Split
    evaluation: Evaluation
    kept: bool


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Args:
        selection: the best configuration or pair of them; None if folds were named.
    """

    plan: Plan
    folds: tuple[FoldResult, ...]
    selection: Selection | None = None


def run(
    project: Project,
    dataset: str | int | Path,
    *,
    configurations: Sequence[str] | None = None,
    folds: Sequence[int | str] | None = None,
    planning: Planning = Planning(),
    training: Training = Training(),
) -> RunResult:
    """Verify, fingerprint, plan, preprocess and train a data set, and find its best configuration or pair of them.

    It may be killed at any moment and called again with the same arguments: what is finished and unchanged is kept, and
    the stages' events say so. A plans file that was edited since `run` made it is kept as it is. A fold whose data,
    plan or settings have changed since `run` trained it is trained anew, and its old folder kept under another name.

    Args:
        dataset: id, name or path of a raw data set.
        configurations: names; None for every one of the plan. What they build on is trained before them.
        folds: numbers, or `all`; None for all of splits_final.json. A configuration that others build on is trained on
            all of these in any case: they want its prediction of each case by a fold that has not seen it.

    Raises:
        DataError: the data set has errors (all are listed), or a stage failed.
        UsageError: no such data set, configuration or fold, or a setting is wrong.
        PluginError: a component is missing.
    """
    chosen_folds = None if folds is None else [parse_fold(fold) for fold in folds]
    folder = project.workspace.raw_folder(dataset)
    name = folder.name
    _check_asked(project, name, configurations or (), planning, training)
    verified_fingerprint(project, dataset)
    record = RunRecord(project.workspace.preprocessed_folder(name))
    plan = _plan(project, dataset, name, planning, record)
    wanted = in_order(plan, list(plan.configurations if configurations is None else configurations))
    check_trainers(project.kernel, plan, wanted, training.trainer, training.overrides, training.epochs)
    preprocess(project, dataset, configurations=wanted, plans_name=plan.plans_name)
    raw = load_dataset(folder)
    cases = list(raw.cases)
    built_on = {plan.configurations[c].previous_stage for c in wanted} - {None}
    every_fold = _all_folds(project, name, cases) if chosen_folds is None or built_on else []
    chosen_folds = every_fold if chosen_folds is None else chosen_folds
    selecting = folds is None
    results = []
    for configuration in wanted:
        store = _store(project, plan, configuration)
        stage = plan.configurations[configuration]
        previous = previous_predictions(project, plan, stage, training.trainer, training.overrides)
        for fold in dict.fromkeys((*(every_fold if configuration in built_on else ()), *chosen_folds)):
            split = find_split(project, name, cases, fold)
            labels = raw.description.labels
            manifest = fold_manifest(
                plan, labels, configuration, split, store, previous=previous, **_settings(training)
            )
            keep = selecting and len(wanted) > 1
            results.append(_train(project, plan, configuration, fold, split, manifest, training, keep))
    return RunResult(plan, tuple(results), _select(project, plan, results, training) if selecting else None)


def _select(project: Project, plan: Plan, results: Sequence[FoldResult], training: Training) -> Selection:
    """Compare what was trained. Trainers may differ by configuration: each is named by its folder."""
    models = [parse_model_name(r.trained.model_folder.name) for r in results]
    trainers = list(dict.fromkeys(model.trainer for model in models))
    return select(
        project,
        plan.dataset_name,
        configurations=list(dict.fromkeys(m.configuration for m in models)) if len(trainers) == 1 else None,
        plans_names=[plan.plans_name],
        trainers=trainers,
        folds=list(dict.fromkeys(r.trained.fold for r in results)),
        computing=Computing(training.device, training.precision),
    )


def _check_asked(
    project: Project, name: str, configurations: Sequence[str], planning: Planning, training: Training
) -> None:
    """Tell mistakes in the call before anything is done."""
    check_configurations(project.workspace, project.kernel, name, planning.planner, configurations)
    check_call(project.kernel, training.trainer, training.overrides, training.device, training.precision)


def _plan(project: Project, dataset: str | int | Path, name: str, planning: Planning, record: RunRecord) -> Plan:
    workspace = project.workspace
    description = read_json(workspace.raw_folder(dataset) / "dataset.json")
    measured = value_hash([read_json(workspace.fingerprint_file(name)), description])
    planner = planning.planner or "default"
    asked = {**asdict(planning), "planner": asdict(planner) if isinstance(planner, ComponentRef) else planner}
    noted = record.planned(asked)
    there = plans_names(workspace, name) if planning.planner is None else []
    usual = there[0] if len(there) == 1 else DEFAULT_PLANS  # as every other command takes them
    file = workspace.plans_file(name, str(noted.get("plans_name", planning.plans_name or usual)))
    reason = ""
    if noted and file.is_file():
        if value_hash(read_json(file)) != noted.get("written"):
            reason = "edited since it was planned"
        elif noted.get("data") == measured:
            reason = "unchanged"
    elif planning.planner is None and file.is_file():
        reason = "there already"
    if reason:
        told_as_kept(project, PLAN_STAGE, f"{name} {file.stem}", reason)
        return read_plan(file)
    made = make_plan(
        project,
        dataset,
        planner=planner,
        memory_gb=planning.memory_gb,
        spacing=planning.spacing,
        plans_name=planning.plans_name,
    )
    written = value_hash(read_json(workspace.plans_file(name, made.plans_name)))
    record.note_planned(asked, plans_name=made.plans_name, data=measured, written=written)
    return made


def _all_folds(project: Project, name: str, cases: Sequence[str]) -> list[int | str]:
    find_split(project, name, cases, 0)  # makes splits_final.json, if it is not there
    file = project.workspace.splits_file(name)
    splits = read_splits(file)
    left_out = sorted(set(cases).difference(*({*split.train, *split.val} for split in splits)))
    if left_out:
        warnings.warn(
            f"{len(left_out)} cases are in no fold of {file} and are not used: {', '.join(left_out)}. To use them, add "
            "them there, or remove the file to have it made anew (every fold is then trained anew)",
            stacklevel=3,
        )
    return list(range(len(splits)))


def _store(project: Project, plan: Plan, configuration: str) -> Store:
    chosen = plan.configurations[configuration]
    folder = project.workspace.store_folder(plan.dataset_name, chosen.data_identifier)
    store: Store = project.kernel.registry.build("stores", STORE)(folder, chosen.patch_size)
    return store


def _settings(training: Training) -> dict[str, Any]:
    """What of them decides the outcome."""
    return {
        "trainer": training.trainer,
        "overrides": training.overrides,
        "epochs": training.epochs,
        "seed": training.seed,
    }


def _train(
    project: Project,
    plan: Plan,
    configuration: str,
    fold: int | str,
    split: Split,
    manifest: Mapping[str, str],
    training: Training,
    save_probabilities: bool,
) -> FoldResult:
    chosen = choose_trainer(
        project.kernel,
        plan,
        configuration,
        name=training.trainer,
        overrides=training.overrides,
        epochs=training.epochs,
    )
    trained = _fold_folder(project, plan, configuration, fold, chosen)
    changed = what_changed(trained, manifest)
    if changed:
        # a mistake in a setting must not cost a trained fold
        check_training(
            project, plan.dataset_name, configuration, fold, plans_name=plan.plans_name, **_settings(training)
        )
        with working_in(trained.folder):
            aside = set_aside(trained)
        if aside is not None:
            what = " and ".join(changed)
            warnings.warn(
                f"{configuration} fold {fold}: trained anew, because {what} changed; what was there is kept in {aside}",
                stacklevel=3,
            )
    finished = [trained.checkpoint(), trained.validation_folder / SUMMARY]
    before = [file.stat().st_mtime_ns if file.is_file() else None for file in finished]
    if None in before:
        write_json(trained.folder / FOLD_FILE, manifest)
    train(
        project,
        plan.dataset_name,
        configuration,
        fold,
        plans_name=plan.plans_name,
        **_settings(training),
        device=training.device,
        precision=training.precision,
        continue_=any(trained.folder.glob("checkpoint_*.pth")),
        save_probabilities=save_probabilities,
    )
    kept = before == [file.stat().st_mtime_ns for file in finished]
    return FoldResult(configuration, trained, split, read_summary(finished[1]), kept)


def _fold_folder(
    project: Project, plan: Plan, configuration: str, fold: int | str, chosen: ChosenTrainer
) -> TrainedFold:
    architecture = plan.configurations[configuration].architecture.name
    trainer = folder_name(project.kernel.registry, chosen.provided.qualified_name, architecture, chosen.trainer)
    folder = project.workspace.fold_folder(plan.dataset_name, trainer, plan.plans_name, configuration, fold)
    return TrainedFold(folder, fold)
