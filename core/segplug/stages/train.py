"""Train one fold of one configuration."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import segplug
from segplug.errors import PluginError
from segplug.model import TrainedFold
from segplug.protocols import PredictionSettings
from segplug.runtime.beginning import Beginning, begin, check_pretrained
from segplug.runtime.component_trial import try_components
from segplug.runtime.compute_settings import training_compute
from segplug.runtime.fold_folder import forget_validation, set_aside
from segplug.runtime.fold_work import FoldWork, find_work, parse_fold
from segplug.runtime.folder_lock import working_in
from segplug.runtime.model_files import write_model_files
from segplug.runtime.plan_components import knowing
from segplug.runtime.prediction_output import find_writer
from segplug.runtime.processes import ALONE, Processes
from segplug.runtime.project import Project
from segplug.runtime.trainer_choice import public_name, record
from segplug.runtime.training_events import telling_of_training
from segplug.runtime.training_log import TrainingLog
from segplug.runtime.training_task import FoldTraining
from segplug.runtime.wording import counted
from segplug.stages.validate_fold import validate_fold

STAGE = "train"


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
    pretrained: Path | None = None,
    save_probabilities: bool = False,
    allow_provider_change: bool = False,
    processes: Processes = ALONE,
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
        pretrained: checkpoint whose weights the network begins with; see `runtime.pretrained.transfer`.
        allow_provider_change: continue although a component of the training is now another plugin's than when it began.
        save_probabilities: keep the probabilities of the validation cases, which `select` makes ensembles of.
        processes: that train together: each makes this very call with its own rank, as torchrun starts them. Batches
            and validation cases are divided among them; the result is one process's, but for rounding. The first one
            alone writes, and tells events. In the others this returns when their part of the work is done.

    Raises:
        UsageError: an argument is wrong, or names something that does not exist.
        DataError: the plan, preprocessed cases or splits are missing or wrong, or have changed since the training that
            is to be continued began.
        CheckpointError: a checkpoint cannot be read or written.
        PluginError: a component is missing, or another plugin's than when the training that is to be continued began.
        ElsewhereError: another of the processes failed, and tells why.
    """
    if not processes.first:
        project = project.without_events()
    with processes.connected():
        with processes.together():
            work = find_work(
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
                allow_provider_change=allow_provider_change,
                processes=processes,
            )
            beginning = _check(project, work, pretrained, processes)
        processes.agree(work.decisive)
        if work.complete and not (save_probabilities and work.without_probabilities):
            with project.stage(STAGE, f"{work.subject} (finished already, nothing to do)"):
                return work.trained
        settings = PredictionSettings(
            device=str(work.device),
            precision=work.precision,
            save_probabilities=save_probabilities,
            allow_provider_change=allow_provider_change,
        )
        _train_and_validate(project, work, continue_, beginning, settings, processes)
    return work.trained


def check_training(
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
) -> None:
    """Refuse what `train` of these arguments, from the beginning, would refuse; nothing is begun or moved.

    Raises:
        UsageError, DataError, PluginError: see `train`.
    """
    work = find_work(
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
        continue_=False,
    )
    _check(project, work, None, ALONE)


def _check(project: Project, work: FoldWork, pretrained: Path | None, processes: Processes) -> Beginning | None:
    """Find mistakes before anything is begun or moved; what the training, if there is to be one, begins with."""
    if pretrained is not None:
        check_pretrained(work, pretrained)
    if not work.complete:  # the validation writes label maps
        find_writer(project.kernel, work.plan.reader.name, work.dataset.file_ending, work.dataset.labels)
    if work.is_trained:
        return None
    processes.require_samples(work.batch_size)
    with knowing(work.plan.provenance, project.kernel.registry, f"plan {work.plan.plans_name!r}"):
        try_components(project.kernel.registry, work.chosen, work.configuration, work.dataset)
    return begin(project.kernel.registry, work, pretrained)


def _train_and_validate(
    project: Project,
    work: FoldWork,
    continue_: bool,
    beginning: Beginning | None,
    settings: PredictionSettings,
    processes: Processes,
) -> None:
    kept = None
    with ExitStack() as held:
        with processes.together():
            if processes.first:
                if not continue_:
                    with working_in(work.trained.folder):  # nobody else trains there
                        kept = set_aside(work.trained)
                held.enter_context(working_in(work.trained.folder))
                if beginning is not None:
                    write_model_files(project.workspace, work)
                held.enter_context(telling_of_training(project, work, continue_, processes))
        if beginning is not None:
            _train(project, work, _subject(work, continue_, kept), beginning, processes)
        with training_compute(work.device, processes):
            validate_fold(
                project,
                work.trained,
                work.split.val,
                work.store,
                settings=settings,
                previous=work.previous,
                next_stages=work.next_stages,
                processes=processes,
            )


def _subject(work: FoldWork, continue_: bool, kept: Path | None) -> str:
    """What is trained, and what it begins with."""
    if work.state.checkpoint is not None:
        return f"{work.subject}, continued after {counted(work.state.epochs_done, 'epoch')}"
    if continue_:
        return f"{work.subject}, nothing to continue, from the beginning"
    return work.subject if kept is None else f"{work.subject}, anew (what was there is kept in {kept})"


def _train(project: Project, work: FoldWork, subject: str, beginning: Beginning, processes: Processes) -> None:
    folder = work.trained.folder
    with project.stage(STAGE, subject, work.epochs or 0), training_compute(work.device, processes) as threads:
        with processes.together():
            log = None
            if processes.first:
                _forget(work)
                log = TrainingLog(folder)
                _log_start(log, work, subject, threads, processes)
            task = _make_task(project, work, log, beginning, processes)
        with task:
            work.chosen.trainer.train(task)
        with processes.together():
            if processes.first:
                if not work.trained.checkpoint("final").is_file():
                    raise PluginError(
                        f"{folder}: trainer {work.chosen.name!r} ended without saving checkpoint_final.pth"
                    )
                # nnU-Net's rule: `final` takes the place of `latest`
                work.trained.checkpoint("latest").unlink(missing_ok=True)
                task.log("training done")


def _forget(work: FoldWork) -> None:
    """Remove what a training about to begin makes wrong."""
    forget_validation(work.trained)
    for stage in work.next_stages:
        for case in stage.wanted(work.split.val, work.trained.fold):
            stage.predictions.discard(case)


def _make_task(
    project: Project, work: FoldWork, log: TrainingLog | None, beginning: Beginning, processes: Processes
) -> FoldTraining:
    registry, configuration, chosen = project.kernel.registry, work.configuration, work.chosen
    done = beginning.transferred
    if done is not None and log is not None:
        for line in done.lines():
            log.line(line)
        if done.anew:
            warnings.warn("; ".join(done.lines()), stacklevel=2)
    used = [work.chosen.provided, registry.resolve("architectures", configuration.architecture.name)]
    return FoldTraining(
        project=project,
        plan=work.plan,
        configuration=configuration,
        dataset=work.dataset,
        fold=work.trained.fold,
        split=work.split,
        folder=work.trained.folder,
        network=beginning.network.to(work.device),
        device=work.device,
        precision=work.precision,
        seed=work.seed,
        store=work.store,
        previous=work.previous,
        trainer_name=public_name(
            registry, chosen.provided.qualified_name, configuration.architecture.name, chosen.trainer
        ),
        used=used,
        extension={
            "trainer": record(work.chosen),
            "seed": work.seed,
            "precision": work.precision,
            "device": work.device.type,
            **work.inputs,
            **({"previous_model": work.previous.model_folder.name} if work.previous else {}),
            **beginning.note,
        },
        saved=work.state.checkpoint,
        training_log=log,
        processes=processes,
    )


def _log_start(log: TrainingLog, work: FoldWork, subject: str, threads: int, processes: Processes) -> None:
    import torch

    log.line(subject)
    log.line(f"segplug {segplug.__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    log.line(f"device {work.device}, precision {work.precision}, {threads} threads, seed {work.seed}")
    if processes.several:
        sizes = ", ".join(map(str, processes.sizes(work.batch_size)))
        log.line(f"{processes.count} processes, samples of a batch in each: {sizes}")
    configuration = work.configuration
    log.line(f"plans {work.plan.plans_name}, batch {configuration.batch_size}, patch {configuration.patch_size}")
    log.line(f"{len(work.split.train)} training and {len(work.split.val)} validation cases")
    if work.previous is not None:
        log.line(f"predictions of {configuration.previous_stage}: {work.previous.model_folder.name}")
    log.line(f"trainer {work.chosen.provided.qualified_name}")
    for name, value in work.chosen.settings.items():
        log.line(f"  {name}: {value}")
    for change in work.chosen.changed:
        log.line(f"changed for the continuation: {change}")
