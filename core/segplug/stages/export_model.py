"""Put trained models into a zip that segplug and nnU-Net install."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import segplug
from segplug.errors import DataError, UsageError
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.choice_codec import read_choice
from segplug.runtime.files import file_hash
from segplug.runtime.model_archive import CARD, MANIFEST, is_allowed, write_archive
from segplug.runtime.model_card import model_card
from segplug.runtime.model_description import FOLD, ModelsDescription, describe_files, fold_order
from segplug.runtime.model_names import CROSSVAL, ModelName, ensemble_parts, fold_of, folds_of, trained_models
from segplug.runtime.planned import DEFAULT_PLANS
from segplug.runtime.postprocessing_file import POSTPROCESSING
from segplug.runtime.project import Project
from segplug.runtime.splits import ALL
from segplug.runtime.trained_model import CHECKPOINTS
from segplug.runtime.trainer_choice import NNUNET_TRAINER
from segplug.runtime.wording import listed

STAGE = "export"
FORMAT = 1
SUMMARY = "summary.json"
_BESIDE_FOLDS = ("plans.json", "dataset.json", "dataset_fingerprint.json")
_IN_FOLD = ("progress.png", "debug.json", "network_architecture.pdf")


@dataclass(frozen=True)
class ExportedModel:
    """An archive that was written."""

    file: Path
    description: ModelsDescription


def export_model(
    project: Project,
    dataset: str | int | Path,
    output: Path,
    *,
    configurations: Sequence[str] | None = None,
    plans_name: str | None = None,
    trainer: str | None = None,
    folds: Sequence[int | str] | None = None,
    checkpoints: Sequence[str] = ("final",),
    predictions: bool = False,
    for_inference: bool = False,
) -> ExportedModel:
    """Write a zip of models of one trainer and plans, in the layout of `nnUNetv2_export_model_to_zip`.

    Added to what nnU-Net packs are `segplug_model.json` (hashes, versions, plugins) and `MODEL_CARD.md`. No pickle goes
    in: of postprocessing the JSON alone. Every checkpoint is read before, so that a damaged one is not passed on.

    Args:
        configurations: None for all that are trained.
        plans_name: None for `nnUNetPlans`, or the only plans there are.
        trainer: as in the folders' names; None for `nnUNetTrainer`, or the only one there is.
        folds: None for all that are trained.
        checkpoints: `final`, `best`, `latest`.
        predictions: pack the label maps of the validations too. Those of formats that no import takes, such as folders,
            are left out with a warning.
        for_inference: leave out the optimiser's state, about half of a checkpoint. The models predict, and other
            trainings can begin with their weights; their own cannot go on from them.

    Raises:
        UsageError: there is no such model, fold or checkpoint.
        CheckpointError: a checkpoint is damaged.
        DataError: plans.json or dataset.json of a model is missing or damaged.
    """
    name = project.workspace.dataset_name(dataset)
    if name.count("__") == 2:
        raise UsageError(f"{dataset}: a model; expected a data set. Name the model's parts with -t, -p and -c")
    root = project.workspace.results_folder(name)
    unknown = sorted(set(checkpoints) - set(CHECKPOINTS))
    if unknown or not checkpoints:
        raise UsageError(f"--checkpoint {', '.join(unknown)}: expected one of {', '.join(CHECKPOINTS)}")
    models = _find_models(root, configurations, plans_name, trainer)
    files: list[Path] = []
    chosen_folds: dict[ModelName, list[int | str]] = {}
    for model in models:
        chosen_folds[model] = _find_folds(root / str(model), folds, checkpoints)
        files += _model_files(root / str(model), chosen_folds[model], checkpoints, predictions)
    files += _shared_files(root, chosen_folds, predictions)
    by_name = _importable({file.relative_to(root.parent).as_posix(): file for file in files}, root)
    with project.stage(STAGE, name, len(by_name)), TemporaryDirectory(prefix="segplug-export-") as scratch:
        if for_inference:
            by_name = _without_optimizer(by_name, Path(scratch))
        described = describe_files(list(by_name), lambda n: by_name[n].read_bytes(), str(root))
        manifest = _manifest(project, described, by_name)
        texts = {f"{name}/{MANIFEST}": json.dumps(manifest, indent=1), f"{name}/{CARD}": model_card(described)}
        write_archive(output, by_name, texts)
    return ExportedModel(output, described)


def _importable(files: dict[str, Path], root: Path) -> dict[str, Path]:
    """What an import takes; a warning tells of the rest."""
    packed = {name: file for name, file in files.items() if file.is_file() and is_allowed(name)}
    if rest := [name for name in files if name not in packed]:
        warnings.warn(
            f"{root.parent}: left out, as an import takes no such files: {listed(rest, 3)}. Copy by themselves those "
            "that are needed",
            stacklevel=3,
        )
    return packed


def _without_optimizer(files: dict[str, Path], scratch: Path) -> dict[str, Path]:
    """The same files, but checkpoints copied without what only their own training needs."""
    from segplug.runtime.checkpoint_writer import write_checkpoint

    copies = {}
    for number, (name, file) in enumerate(files.items()):
        copies[name] = file
        if file.suffix == ".pth":
            copies[name] = scratch / f"{number}.pth"
            state = read_checkpoint(file).state
            write_checkpoint(copies[name], {**state, "optimizer_state": None, "grad_scaler_state": None})
    return copies


def _find_models(
    root: Path, configurations: Sequence[str] | None, plans_name: str | None, trainer: str | None
) -> list[ModelName]:
    there = trained_models(root)
    listed = f"There are: {', '.join(map(str, there)) or 'none'}"
    if trainer is None:
        trainers = {model.trainer for model in there if plans_name in (None, model.plans)}
        trainer = next(iter(trainers)) if len(trainers) == 1 else NNUNET_TRAINER
    of_trainer = [model for model in there if model.trainer == trainer]
    plans = sorted({model.plans for model in of_trainer})
    if plans_name is None:
        plans_name = DEFAULT_PLANS if DEFAULT_PLANS in plans or len(plans) != 1 else plans[0]
    found = [model for model in of_trainer if model.plans == plans_name]
    if not found:
        raise UsageError(f"{root}: no models of trainer {trainer} and plans {plans_name}. {listed}")
    if configurations is None:
        return found
    wanted = [ModelName(trainer, plans_name, configuration) for configuration in dict.fromkeys(configurations)]
    missing = [str(model) for model in wanted if model not in found]
    if missing:
        raise UsageError(f"{root}: no model {', '.join(missing)}. {listed}")
    return wanted


def _find_folds(model: Path, folds: Sequence[int | str] | None, checkpoints: Sequence[str]) -> list[int | str]:
    named = (f.name.removeprefix("fold_") for f in model.glob("fold_*") if f.is_dir())
    # others a person put aside, as fold_0_old or fold_00
    there = sorted((f for f in named if FOLD.fullmatch(f) and str(fold_of(f)) == f), key=fold_order)
    having = [f for f in there if all((model / f"fold_{f}" / f"checkpoint_{c}.pth").is_file() for c in checkpoints)]
    found = [fold_of(f) for f in having]
    if folds is None and found:
        return found
    missing = [str(f) for f in folds or () if str(f) not in having]
    if missing or not found:
        names = ", ".join(f"checkpoint_{c}.pth" for c in checkpoints)
        raise UsageError(
            f"{model}: fold {', '.join(missing) or 'of any number'} has no {names}. Folds that have: "
            f"{', '.join(having) or 'none'}"
        )
    return [fold_of(f) for f in having if f in map(str, folds or ())]


def _model_files(model: Path, folds: Sequence[int | str], checkpoints: Sequence[str], predictions: bool) -> list[Path]:
    files = [model / name for name in _BESIDE_FOLDS]
    for fold in folds:
        folder = model / f"fold_{fold}"
        files += [folder / f"checkpoint_{checkpoint}.pth" for checkpoint in checkpoints]
        files += [folder / name for name in _IN_FOLD]
        files += _evaluated(folder / "validation", predictions)
    for folder in sorted(model.glob(f"{CROSSVAL}*")):
        if set(folds_of(folder.name.removeprefix(CROSSVAL))) == set(folds) - {ALL}:  # in any order
            files += _evaluated(folder, predictions)
    return [f for f in files if f.exists()]


def _shared_files(root: Path, models: dict[ModelName, list[int | str]], predictions: bool) -> list[Path]:
    """What several models have in common: ensembles whose members all are in, with their folds; the choice likewise."""
    files: list[Path] = []
    packed = {str(model): set(folds) for model, folds in models.items()}
    for folder in sorted((root / "ensembles").glob("ensemble___*")):
        members, folds = ensemble_parts(folder.name)
        if members and folds and all(set(folds) <= packed.get(member, set()) for member in members):
            files += _evaluated(folder, predictions)
    choice = root / "inference_information.json"
    if choice.is_file():
        try:
            chosen = read_choice(choice)
        except DataError as error:
            warnings.warn(f"the choice is left out: {error}", stacklevel=3)
            return [f for f in files if f.exists()]
        if all(set(chosen.folds) <= packed.get(member.name, set()) for member in chosen.members):
            files += [choice, chosen.postprocessing]
    return [f for f in files if f.exists()]


def _evaluated(folder: Path, predictions: bool) -> list[Path]:
    if predictions and folder.is_dir():
        found = [f for f in sorted(folder.iterdir()) if f.name[0] != "." and f.suffix not in (".npz", ".pkl")]
        return [f for f in found if f.is_file() or f.suffix]  # a folder with an ending is a label map of such a format
    return [folder / name for name in (SUMMARY, POSTPROCESSING)]


def _manifest(project: Project, described: ModelsDescription, files: dict[str, Path]) -> dict[str, Any]:
    hashes, trained = {}, {}
    for done, (name, file) in enumerate(files.items(), start=1):
        hashes[name] = {"sha256": file_hash(file), "bytes": file.stat().st_size}
        if file.suffix == ".pth":
            extension = read_checkpoint(file, mapped=True).extension
            trained[name] = {key: extension[key] for key in ("version", "provenance", "trainer") if key in extension}
        project.progress(STAGE, file.name, done, len(files))
    return {
        "format": FORMAT,
        "segplug": segplug.__version__,
        "description": described.as_json(),
        "trained_with": trained,
        "files": hashes,
    }
