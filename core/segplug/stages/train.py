"""Train one fold of one configuration."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import segplug
from segplug.errors import DataError, PluginError, UsageError
from segplug.model import Configuration, DatasetDescription, Plan, Split, TrainedFold
from segplug.protocols import PredictionSettings, Store
from segplug.runtime.case_preprocessing import preprocessing_settings
from segplug.runtime.checkpoint import Checkpoint
from segplug.runtime.compute_settings import training_compute
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.device import resolve_device, resolve_precision
from segplug.runtime.files import read_json, replacing, value_hash, write_json
from segplug.runtime.fold_folder import FoldState, forget_validation, read_state, set_aside
from segplug.runtime.folder_lock import working_in
from segplug.runtime.manifest import changed_settings
from segplug.runtime.network import build_network, count_input_channels
from segplug.runtime.plan_codec import decode_plan, encode_plan
from segplug.runtime.planned import find_configuration, find_plan
from segplug.runtime.project import Project
from segplug.runtime.randomness import torch_seed
from segplug.runtime.raw_dataset import survey_dataset
from segplug.runtime.splits import find_split
from segplug.runtime.trainer_choice import (
    ChosenTrainer,
    check_components,
    choose_trainer,
    folder_name,
    public_name,
    record,
)
from segplug.runtime.training_log import TrainingLog
from segplug.runtime.training_task import FoldTraining
from segplug.runtime.workspace import Workspace
from segplug.stages.preprocess import STORE
from segplug.stages.validate_fold import validate_fold

if TYPE_CHECKING:
    import torch

STAGE = "train"
DEFAULT_SEED = 0


@dataclass(frozen=True)
class _Work:
    """What is to be trained, found out before anything is written."""

    plan: Plan
    configuration: Configuration
    dataset: DatasetDescription
    split: Split
    store: Store
    chosen: ChosenTrainer
    trained: TrainedFold
    state: FoldState
    device: torch.device
    precision: str
    seed: int

    @property
    def subject(self) -> str:
        return f"{self.dataset.name} {self.configuration.name} fold {self.trained.fold}"

    @property
    def epochs(self) -> int | None:
        return getattr(self.chosen.trainer, "epochs", None)


def train(
    project: Project,
    dataset: str | int | Path,
    configuration: str,
    fold: int | str,
    *,
    plans_name: str | None = None,
    trainer: str | None = None,
    overrides: Sequence[str] = (),
    epochs: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int | None = None,
    continue_: bool = False,
) -> TrainedFold:
    """Train one fold, then predict and evaluate its validation cases.

    The model folder gets nnU-Net's layout: plans.json, dataset.json and dataset_fingerprint.json beside `fold_<fold>`
    with checkpoints (`latest` after every epoch until `final` is written, `best` by the moving average of the
    pseudo-Dice), training_log_*.txt, progress.png and `validation/`.

    Args:
        dataset: id, name or path of a data set that was planned and preprocessed.
        fold: its number, or `all` for every case (which are then the validation cases too).
        plans_name: None for `nnUNetPlans`, or the only plans there are.
        trainer: name of the trainer; None for the plan's, or the default.
        overrides: settings of the trainer, ``trainer.<field>=<value>``; see `runtime.overrides.apply_overrides`.
        epochs: short for ``trainer.epochs=<epochs>``.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `auto`, `fp32`, `bf16`, `fp16`.
        seed: of all randomness; None for 0.
        continue_: go on where an interrupted training of this fold stopped, with its trainer, settings, seed and
            precision unless others are given. What is finished is kept. Without it a fold that was trained before is
            trained anew; its old folder is kept under the name `previous_fold_<fold>_<time>`.

    Raises:
        UsageError: an argument is wrong, or names something that does not exist.
        DataError: the plan, preprocessed cases or splits are missing or wrong, or have changed since the training that
            is to be continued began.
        CheckpointError: a checkpoint cannot be read or written.
        PluginError: a component is missing.
    """
    work = _find_work(
        project,
        dataset,
        configuration,
        parse_fold(fold),
        plans_name=plans_name,
        trainer=trainer,
        overrides=overrides,
        epochs=epochs,
        device=device,
        precision=precision,
        seed=seed,
        continue_=continue_,
    )
    finished = work.state.trained(work.epochs)
    if finished and work.state.validated:
        with project.stage(STAGE, f"{work.subject} (finished already, nothing to do)"):
            return work.trained
    if not finished:
        check_components(project.kernel.registry, work.chosen)
    kept = None
    if not continue_:
        with working_in(work.trained.folder):  # nobody else trains there
            kept = set_aside(work.trained)
    with working_in(work.trained.folder):
        if not finished:
            _train(project, work, _subject(work, continue_, kept))
        settings = PredictionSettings(device=str(work.device), precision=work.precision)
        with training_compute(work.device):
            validate_fold(project, work.trained, work.split.val, work.store, settings=settings)
    return work.trained


def parse_fold(fold: int | str) -> int | str:
    """A fold's number, or `all`.

    Raises:
        UsageError: it is neither.
    """
    text = str(fold)
    if text != "all" and not text.isdecimal():
        raise UsageError(f"fold {text!r}: expected a number from 0 on, or all")
    return int(text) if text.isdecimal() else text


def _find_work(
    project: Project,
    dataset: str | int | Path,
    configuration: str,
    fold: int | str,
    *,
    plans_name: str | None,
    trainer: str | None,
    overrides: Sequence[str],
    epochs: int | None,
    device: str,
    precision: str,
    seed: int | None,
    continue_: bool,
) -> _Work:
    workspace, registry = project.workspace, project.kernel.registry
    name = workspace.dataset_name(dataset)
    plan = find_plan(workspace, name, plans_name)
    chosen_configuration = find_configuration(plan, configuration)
    if chosen_configuration.previous_stage is not None:
        raise UsageError(
            f"configuration {configuration} takes the predictions of {chosen_configuration.previous_stage} as input; "
            "only configurations without a previous stage can be trained"
        )
    description = _read_description(workspace, name)
    torch_device = resolve_device(device)
    resolve_precision(precision, torch_device)  # a mistake in it is told before anything is moved
    chosen = choose_trainer(project.kernel, plan, configuration, name=trainer, overrides=overrides, epochs=epochs)
    trainer_part = folder_name(registry, chosen.provided.qualified_name, chosen_configuration.architecture.name)
    trained = TrainedFold(workspace.fold_folder(name, trainer_part, plan.plans_name, configuration, fold), fold)
    state = read_state(trained) if continue_ else FoldState()
    continued: Mapping[str, Any] = state.checkpoint.extension if state.checkpoint else {}
    if "trainer" in continued:
        chosen = choose_trainer(
            project.kernel,
            plan,
            configuration,
            name=trainer,
            overrides=overrides,
            epochs=epochs,
            continued=continued["trainer"],
        )
    if precision == "auto" and continued.get("device") == torch_device.type:
        precision = continued["precision"]
    store = _open_store(project, name, chosen_configuration)
    split = find_split(project, name, _case_names(workspace, dataset, store), fold)
    trained_already = state.trained(getattr(chosen.trainer, "epochs", None))
    if not (state.validated and trained_already):
        settings = preprocessing_settings(plan, chosen_configuration, description, registry)
        _require_cases(store, split, plan, chosen_configuration, settings)
    if state.checkpoint is not None and not trained_already:
        _require_same(state.checkpoint, plan, chosen_configuration, split)
    return _Work(
        plan=plan,
        configuration=chosen_configuration,
        dataset=description,
        split=split,
        store=store,
        chosen=chosen,
        trained=trained,
        state=state,
        device=torch_device,
        precision=resolve_precision(precision, torch_device),
        seed=continued.get("seed", DEFAULT_SEED) if seed is None else seed,
    )


def _subject(work: _Work, continue_: bool, kept: Path | None) -> str:
    """What is trained, and what it begins with."""
    if work.state.checkpoint is not None:
        return f"{work.subject}, continued from epoch {work.state.epochs_done}"
    if continue_:
        return f"{work.subject}, nothing to continue, from the beginning"
    return work.subject if kept is None else f"{work.subject}, anew (what was there is kept in {kept})"


def _train(project: Project, work: _Work, subject: str) -> None:
    folder = work.trained.folder
    forget_validation(work.trained)
    _write_model_files(project, work)
    log = TrainingLog(folder)
    with project.stage(STAGE, subject, work.epochs or 0), training_compute(work.device) as threads:
        _log_start(log, work, subject, threads)
        with _make_task(project, work, log) as task:
            work.chosen.trainer.train(task)
        if not work.trained.checkpoint("final").is_file():
            raise PluginError(f"{folder}: trainer {work.chosen.name!r} ended without saving checkpoint_final.pth")
        # nnU-Net's rule: `final` takes the place of `latest`
        work.trained.checkpoint("latest").unlink(missing_ok=True)
        log.line("training done")


def _make_task(project: Project, work: _Work, log: TrainingLog) -> FoldTraining:
    import torch

    registry, configuration = project.kernel.registry, work.configuration
    deep_supervision = bool(getattr(work.chosen.trainer, "deep_supervision", True))
    labels = work.dataset.labels
    channels = count_input_channels(configuration, work.dataset.num_channels, labels)
    torch.manual_seed(torch_seed(work.seed, "network", work.trained.fold))
    network = build_network(registry, configuration, channels, labels.output_channels, deep_supervision)
    used = [work.chosen.provided, registry.resolve("architectures", configuration.architecture.name)]
    return FoldTraining(
        project=project,
        plan=work.plan,
        configuration=configuration,
        dataset=work.dataset,
        fold=work.trained.fold,
        split=work.split,
        folder=work.trained.folder,
        network=network.to(work.device),
        device=work.device,
        precision=work.precision,
        seed=work.seed,
        store=work.store,
        trainer_name=public_name(registry, work.chosen.provided.qualified_name, configuration.architecture.name),
        used=used,
        extension={
            "trainer": record(work.chosen),
            "seed": work.seed,
            "precision": work.precision,
            "device": work.device.type,
            "split": value_hash(asdict(work.split)),
        },
        saved=work.state.checkpoint,
        training_log=log,
    )


def _read_description(workspace: Workspace, dataset: str) -> DatasetDescription:
    """dataset.json as the data were preprocessed with it, else the raw data set's."""
    file = workspace.preprocessed_folder(dataset) / "dataset.json"
    if not file.is_file():
        file = workspace.raw_folder(dataset) / "dataset.json"
    return parse_description(read_json(file), dataset, file)


def _open_store(project: Project, dataset: str, configuration: Configuration) -> Store:
    folder = project.workspace.store_folder(dataset, configuration.data_identifier)
    store: Store = project.kernel.registry.build("stores", STORE)(folder, configuration.patch_size)
    return store


def _case_names(workspace: Workspace, dataset: str | int | Path, store: Store) -> list[str]:
    """All training cases, also those that preprocessing has not come to: splits made without them would stay so."""
    there = store.cases()
    try:
        survey, _ = survey_dataset(workspace.raw_folder(dataset))
    except UsageError:  # preprocessed data are enough to train
        return there
    return sorted({*there, *(survey.cases if survey else ())})


def _require_cases(
    store: Store, split: Split, plan: Plan, configuration: Configuration, settings: Mapping[str, Any]
) -> None:
    """Refuse to train without some of the fold's cases, or with cases that were preprocessed in another way.

    Plans may share a folder of preprocessed cases, and a plan may be made again after they were.
    """
    missing, changed = [], set()
    for case in dict.fromkeys((*split.train, *split.val)):
        made_from = store.made_from(case)
        if made_from is None:
            missing.append(case)
        else:
            changed.update(changed_settings(made_from, settings))
    where = f"{plan.dataset_name}, configuration {configuration.name}"
    remedy = f"Run: segplug preprocess {plan.dataset_name} -c {configuration.name} --plans-name {plan.plans_name}"
    if missing:
        listed = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise DataError(f"{where}: {len(missing)} cases of the fold are not preprocessed: {listed}. {remedy}")
    if changed:
        raise DataError(
            f"{where}: cases in {configuration.data_identifier} were preprocessed otherwise than {plan.plans_name} "
            f"says ({', '.join(sorted(changed))}), for other plans or before these were changed. {remedy}"
        )


def _require_same(checkpoint: Checkpoint, plan: Plan, configuration: Configuration, split: Split) -> None:
    """Refuse to go on with a training whose plan or cases have changed: the result would belong to neither."""
    then = decode_plan(checkpoint.plans, checkpoint.path).configurations.get(configuration.name)
    now = decode_plan(encode_plan(plan), checkpoint.path).configurations[configuration.name]
    decisive = {f.name for f in fields(now) if f.compare} - {"inherits_from", "next_stage", "extra"}
    changed = [name for name in sorted(decisive) if then is None or getattr(then, name) != getattr(now, name)]
    if checkpoint.extension.get("split", value_hash(asdict(split))) != value_hash(asdict(split)):
        changed.append("cases of the fold")
    if changed:
        raise DataError(
            f"{checkpoint.path}: since this training began, its {plan.plans_name} or splits have changed "
            f"({', '.join(changed)}). Restore them, or train anew without --continue"
        )


def _write_model_files(project: Project, work: _Work) -> None:
    """plans.json, dataset.json and dataset_fingerprint.json beside the folds, as nnU-Net does."""
    folder, workspace = work.trained.model_folder, project.workspace
    write_json(folder / "plans.json", encode_plan(work.plan))
    write_json(folder / "dataset.json", work.dataset.raw)
    fingerprint = workspace.fingerprint_file(work.dataset.name)
    if fingerprint.is_file():
        with replacing(folder / fingerprint.name) as partial:
            shutil.copyfile(fingerprint, partial)


def _log_start(log: TrainingLog, work: _Work, subject: str, threads: int) -> None:
    import torch

    log.line(subject)
    log.line(f"segplug {segplug.__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    log.line(f"device {work.device}, precision {work.precision}, {threads} threads, seed {work.seed}")
    configuration = work.configuration
    log.line(f"plans {work.plan.plans_name}, batch {configuration.batch_size}, patch {configuration.patch_size}")
    log.line(f"{len(work.split.train)} training and {len(work.split.val)} validation cases")
    log.line(f"trainer {work.chosen.provided.qualified_name}")
    for name, value in work.chosen.settings.items():
        log.line(f"  {name}: {value}")
    for change in work.chosen.changed:
        log.line(f"changed for the continuation: {change}")
