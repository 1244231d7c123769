"""Cross-validation: the validation predictions of all folds of a model in one place, evaluated together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segplug.errors import DataError, UsageError
from segplug.model import DatasetDescription, Evaluation, TrainedFold
from segplug.runtime.evaluation import SUMMARY, read_summary
from segplug.runtime.files import read_json, remove, write_json
from segplug.runtime.folder_lock import working_in
from segplug.runtime.manifest import made_from, staleness
from segplug.runtime.model_names import crossval_name
from segplug.runtime.prediction_folder import FolderDescription, describe_folder
from segplug.runtime.prediction_output import MANIFESTS
from segplug.runtime.project import Project
from segplug.runtime.reference_labels import copy_if_changed
from segplug.runtime.train_command import train_command
from segplug.stages.evaluate import evaluate, label_maps

STAGE = "cross-validation"


@dataclass(frozen=True)
class CrossValidation:
    """The cross-validation of a model or an ensemble.

    Args:
        folder: label maps of all validation cases, with summary.json, dataset.json and plans.json.
        evaluation: what summary.json says.
    """

    folder: Path
    evaluation: Evaluation


def gather_folds(
    project: Project, model_folder: Path, folds: Sequence[int | str], *, output: Path | None = None
) -> CrossValidation:
    """Copy the validation predictions of several folds into one folder and evaluate them together.

    What is there and unchanged is kept.

    Args:
        model_folder: `<Trainer>__<Plans>__<Configuration>`.
        folds: numbers, or `all`.
        output: None for `crossval_results_folds_<folds>` in the model folder, nnU-Net's place.

    Raises:
        UsageError: there is no such model, or `output` holds other label maps than those of a cross-validation.
        DataError: a fold was not trained and validated to its end, validation predictions or references are missing, or
            two folds predicted the same case.
    """
    described = describe_folder(project.kernel, model_folder)
    ending = described.dataset.file_ending
    files = validation_files(project, model_folder, folds, ending)
    target = output or model_folder / crossval_name(folds)
    with working_in(target):
        _remove_others(target, ending, files)
        described.copy_to(target)
        for case, file in files.items():
            copy_if_changed(file, target / file.name)
            beside = file.with_name(f"{case}.json")  # the spacing of a TIFF
            if beside.is_file():
                copy_if_changed(beside, target / beside.name)
        references = find_references(project, described, files)
        evaluation = evaluate_if_changed(project, references, target, described.dataset)
    return CrossValidation(target, evaluation)


def _remove_others(folder: Path, ending: str, cases: Collection[str]) -> None:
    """Remove what an earlier cross-validation left of cases that are no longer in it; never anything else."""
    others = [file for case, file in label_maps(folder, ending).items() if case not in cases]
    if not others:
        return
    try:
        known = {evaluated.prediction.name for evaluated in read_summary(folder / SUMMARY).cases}
    except DataError:  # none, or damaged
        known = set()
    strange = [file.name for file in others if file.name not in known]
    if strange:
        raise UsageError(
            f"{folder}: holds label maps that are no validation predictions of these folds: {', '.join(strange[:5])}. "
            "Move them away, or give an empty folder"
        )
    for file in others:
        remove(file)


def validation_files(project: Project, model_folder: Path, folds: Sequence[int | str], ending: str) -> dict[str, Path]:
    """Label map of each validation case of the folds, as their summaries name them; sorted by case.

    Raises:
        DataError: a fold is not finished, a prediction is missing, or two folds predicted the same case.
    """
    found: dict[str, Path] = {}
    for fold in folds:
        folder = TrainedFold(model_folder / f"fold_{fold}", fold).validation_folder
        if not (folder / SUMMARY).is_file():
            raise DataError(
                f"{folder / SUMMARY}: no such file, so fold {fold} is not trained and validated to its end. "
                f"Run: {train_command(project.kernel, model_folder, fold)}"
            )
        for evaluated in read_summary(folder / SUMMARY).cases:
            file = folder / evaluated.prediction.name
            case = file.name.removesuffix(ending)
            if not file.exists():
                raise DataError(
                    f"{file}: no such prediction, though {SUMMARY} beside it has its scores. "
                    f"Run: {train_command(project.kernel, model_folder, fold)}"
                )
            if case in found:
                raise DataError(
                    f"{file}: {found[case]} is a prediction of the same case; expected each case in one fold. Give the "
                    "folds of one cross-validation"
                )
            found[case] = file
    return dict(sorted(found.items()))


def find_references(project: Project, described: FolderDescription, cases: Mapping[str, Path]) -> dict[str, Path]:
    """The reference of each case: the copy beside the preprocessed data, else the raw data set's.

    Raises:
        DataError: some are in neither place.
    """
    name, ending = described.dataset.name, described.dataset.file_ending
    folders = []
    for folder in (project.workspace.reference_folder, lambda n: project.workspace.raw_folder(n) / "labelsTr"):
        try:
            folders.append(folder(name))
        except UsageError:  # that root is not set
            continue
    found = {}
    for case in cases:
        there = [file for file in (folder / f"{case}{ending}" for folder in folders) if file.exists()]
        if there:
            found[case] = there[0]
    missing = [case for case in cases if case not in found]
    if missing:
        raise DataError(
            f"{', '.join(map(str, folders)) or 'no folder of preprocessed or raw data is set'}: no reference for "
            f"{len(missing)} cases: {', '.join(missing[:10])}. Run: segplug preprocess {name}"
        )
    return found


def evaluate_if_changed(
    project: Project, references: Mapping[str, Path], folder: Path, dataset: DatasetDescription
) -> Evaluation:
    """Evaluate the label maps of a folder that have a reference, unless its summary.json is of these very files.

    Raises:
        DataError: see `segplug.stages.evaluate.evaluate`.
    """
    maps = label_maps(folder, dataset.file_ending)
    inputs = [file for case in sorted({*maps} & {*references}) for file in (maps[case], references[case])]
    labels = dataset.labels
    settings = {
        "labels": [list(labels.values.values()), list(labels.regions_class_order), labels.ignore_label],
        "folders": sorted({str(file.parent) for file in inputs}),  # summary.json names the files
    }
    note = folder / MANIFESTS / "evaluated" / SUMMARY
    if (folder / SUMMARY).is_file() and note.is_file():
        try:
            if not staleness(read_json(note), inputs, settings, hashing=True):
                return read_summary(folder / SUMMARY)
        except DataError:  # damaged: made anew
            pass
    note.unlink(missing_ok=True)
    made = made_from(inputs, settings)
    evaluation = evaluate(project, {case: references[case] for case in references if case in maps}, folder, dataset)
    write_json(note, made)
    return evaluation
