"""The probabilities of a model's validation cases, which ensembles are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segplug.errors import DataError, UsageError
from segplug.model import TrainedFold
from segplug.protocols import PredictionSettings
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.files import read_json
from segplug.runtime.folder_lock import working_in
from segplug.runtime.model_names import parse_model_name
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.prediction_folder import PLANS, describe_folder
from segplug.runtime.prediction_output import MANIFESTS
from segplug.runtime.preprocessed_cases import open_store
from segplug.runtime.project import Project
from segplug.runtime.stage_predictions import StagePredictions, previous_model_folder
from segplug.runtime.train_command import train_command
from segplug.stages.crossval import validation_files


@dataclass(frozen=True)
class Computing:
    """With what cases are predicted: see `segplug.protocols.PredictionSettings`."""

    device: str = "auto"
    precision: str = "auto"


def validation_probabilities(
    project: Project, model_folder: Path, folds: Sequence[int | str], computing: Computing
) -> dict[str, Path]:
    """The `.npz` of every validation case of the folds, sorted by case.

    A fold that lacks some is validated again with its final checkpoint, this time keeping probabilities: what
    `nnUNetv2_train --val --npz` does.

    Raises:
        DataError: a fold is not finished; or probabilities are missing and cannot be made, as its checkpoint or the
            preprocessed cases are not there.
    """
    ending = describe_folder(project.kernel, model_folder).dataset.file_ending
    for fold in folds:
        files = validation_files(project, model_folder, [fold], ending)
        missing = [case for case, file in files.items() if not _beside(file, case).is_file()]
        if missing:
            _predict_again(project, TrainedFold(model_folder / f"fold_{fold}", fold), list(files), missing, computing)
    return {case: _beside(file, case) for case, file in validation_files(project, model_folder, folds, ending).items()}


def _beside(label_map: Path, case: str) -> Path:
    return label_map.with_name(f"{case}.npz")


def _predict_again(
    project: Project, trained: TrainedFold, cases: Sequence[str], missing: Sequence[str], computing: Computing
) -> None:
    from segplug.stages.validate_fold import validate_fold

    folder = trained.model_folder
    reason = (
        f"{trained.validation_folder}: no probabilities (CASE.npz) of {len(missing)} cases ({', '.join(missing[:5])}), "
        "which ensembles are made of, and they cannot be predicted again"
    )
    if not trained.checkpoint().is_file():
        command = train_command(project.kernel, folder, trained.fold)
        raise DataError(f"{reason}: {trained.checkpoint()} is not there. Run: {command}")
    plan = read_plan(folder / PLANS)
    configuration = plan.configurations[parse_model_name(folder.name).configuration]
    preprocess = (
        f"segplug preprocess {plan.dataset_name} -c {configuration.name} --plans-name {plan.plans_name}; a model of "
        f"nnU-Net: nnUNetv2_train {plan.dataset_name} {configuration.name} {trained.fold} --val --npz"
    )
    try:
        store = open_store(project, plan.dataset_name, configuration)
    except UsageError as error:
        raise DataError(f"{reason}: {error}") from None
    absent = [case for case in cases if store.made_from(case) is None]
    if absent:
        raise DataError(f"{reason}: {', '.join(absent[:5])} are not preprocessed. Run: {preprocess}")
    settings = PredictionSettings(
        device=computing.device,
        precision=_recorded_precision(trained, computing.precision),
        save_probabilities=True,
    )
    previous = None
    if configuration.previous_stage is not None:
        recorded = read_checkpoint(trained.checkpoint(), mapped=True).extension.get("previous_model")
        previous = StagePredictions.of(previous_model_folder(folder, configuration, recorded), configuration.name)
    with working_in(trained.folder):
        validate_fold(project, trained, cases, store, settings=settings, previous=previous)


def _recorded_precision(trained: TrainedFold, asked: str) -> str:
    """That of the validation that was there, so that its labels stay as they are."""
    manifests = sorted((trained.validation_folder / MANIFESTS).glob("*.json"))
    if asked != "auto" or not manifests:
        return asked
    try:
        return str(read_json(manifests[0])["made_from"]["settings"]["precision"])
    except (DataError, KeyError, TypeError):
        return asked
