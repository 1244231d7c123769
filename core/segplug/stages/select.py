"""Find the best model or pair of models of a data set by cross-validation, and the postprocessing that goes with it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from segplug.errors import DataError, UsageError
from segplug.model import Choice, ComponentRef, Evaluation
from segplug.runtime.choice_codec import candidate_folder, write_choice
from segplug.runtime.component_text import component_of_user
from segplug.runtime.model_names import ModelName, trained_models
from segplug.runtime.planned import DEFAULT_PLANS
from segplug.runtime.postprocessing_file import DEFAULT_POSTPROCESSOR
from segplug.runtime.prediction_folder import describe_folder
from segplug.runtime.prediction_output import PredictionOutput
from segplug.runtime.project import Project
from segplug.runtime.splits import ALL, read_splits
from segplug.runtime.train_command import train_command
from segplug.runtime.trainer_choice import NNUNET_TRAINER
from segplug.stages.crossval import evaluate_if_changed, find_references, gather_folds
from segplug.stages.ensemble import ensemble_cases, require_same_labels
from segplug.stages.postprocess import fit_postprocessing
from segplug.stages.validation_probabilities import Computing, validation_probabilities

STAGE = "select"

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
"""nnU-Net's order, which decides ties; configurations with other names come after them."""

FOLDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Candidate:
    """A model, or a pair of models, that was compared.

    Args:
        name: of its folder.
        members: one model, or two.
        folder: with the predictions of all validation cases and summary.json.
    """

    name: str
    members: tuple[ModelName, ...]
    folder: Path
    evaluation: Evaluation

    @property
    def mean_dice(self) -> float:
        return self.evaluation.mean_dice


@dataclass(frozen=True)
class Selection:
    """What was compared, and what is best."""

    choice: Choice
    best: Candidate
    candidates: tuple[Candidate, ...]


def select(
    project: Project,
    dataset: str | int | Path,
    *,
    configurations: Sequence[str] | None = None,
    plans_names: Sequence[str] | None = None,
    trainers: Sequence[str] | None = None,
    folds: Sequence[int | str] | None = None,
    ensembles: bool = True,
    postprocessor: str | ComponentRef = DEFAULT_POSTPROCESSOR,
    computing: Computing | None = None,
) -> Selection:
    """Compare every configuration and every pair of them by the mean foreground Dice of their cross-validation.

    nnU-Net's rule: the highest wins, of equals the first, single models before pairs; then postprocessing is decided on
    the winner's predictions. The winner, with the postprocessing, is written to `inference_information.json` and
    `inference_instructions.txt` in the data set's folder of results; what the candidates predicted, to
    `crossval_results_folds_*` in the model folders and to `ensembles/`. What is there and unchanged is kept. A
    candidate that lacks a class entirely, so that it has no mean Dice, is the last.

    Args:
        dataset: id, name or path of a data set.
        configurations: names; None for all of which there is a trained model. One that is named has to be trained.
        plans_names: None for `nnUNetPlans`, or the only plans of which there are models.
        trainers: None for `nnUNetTrainer`, or the only trainer of which there are models.
        folds: None for those of splits_final.json, else 0 to 4.
        ensembles: compare pairs too. They are made of the probabilities of the validation cases; where these are
            missing, the cases are predicted again.
        postprocessor: the component, or its text `NAME,option=VALUE,...`.
        computing: with what missing probabilities are predicted; None for the defaults.

    Raises:
        UsageError: there is no model, or none of a name that was given, or no such postprocessor; or a fold is `all`.
        DataError: a fold is not trained to its end, files are missing, or models were validated on different cases.
    """
    name = project.workspace.dataset_name(dataset)
    root = project.workspace.results_folder(name)
    used_folds = tuple(_folds(project, name) if folds is None else folds)
    if not used_folds:
        raise UsageError("no fold given")
    if ALL in used_folds:
        raise UsageError(
            "--fold all: that model was trained on the cases that it was validated on, which tells nothing of new "
            "ones. Select by the other folds; 'segplug predict -d DATASET -f all' predicts with the model of all cases"
        )
    # told before the work begins
    postprocessor = component_of_user(project.kernel.registry, "postprocessors", postprocessor, "postprocessor")
    models = _find_models(project, root, configurations, plans_names, trainers, used_folds)
    pairs = list(combinations(models, 2)) if ensembles else []
    candidates: list[Candidate] = []
    with project.stage(STAGE, name, len(models) + len(pairs)):
        for members in [*((model,) for model in models), *pairs]:
            folder = candidate_folder(root, members, used_folds)
            if len(members) == 1:
                evaluation = gather_folds(project, root / str(members[0]), used_folds, output=folder).evaluation
            else:
                evaluation = _ensemble(project, root, members, used_folds, folder, computing or Computing())
            shown = str(members[0]) if len(members) == 1 else folder.name
            candidates.append(Candidate(shown, tuple(members), folder, evaluation))
            project.progress(STAGE, shown, len(candidates), len(models) + len(pairs))
        _warn_of_different_cases(candidates)
        best = max(candidates, key=lambda c: -math.inf if math.isnan(c.mean_dice) else c.mean_dice)
        references = find_references(project, describe_folder(project.kernel, best.folder), _cases(best))
        fitted = fit_postprocessing(project, best.folder, references, postprocessor=postprocessor)
        choice = Choice(
            dataset=name,
            members=tuple(root / str(member) for member in best.members),
            folds=used_folds,
            mean_dice=best.mean_dice,
            postprocessed_dice=fitted.after.mean_dice,
            postprocessing=fitted.file,
        )
        scores = {candidate.name: candidate.mean_dice for candidate in candidates}
        write_choice(
            project.workspace,
            choice,
            considered=models,
            ensembles=ensembles,
            results=scores,
        )
        project.emit("segplug_model_chosen", choice=choice, scores=scores)
    return Selection(choice, best, tuple(candidates))


def _ensemble(
    project: Project,
    root: Path,
    members: Sequence[ModelName],
    folds: Sequence[int | str],
    folder: Path,
    computing: Computing,
) -> Evaluation:
    sources = [root / str(member) for member in members]
    described = describe_folder(project.kernel, sources[0])
    require_same_labels(project, sources, described.dataset.labels)
    files = [validation_probabilities(project, source, folds, computing) for source in sources]
    for source, found in zip(sources, files, strict=True):
        missing = sorted({case for other in files for case in other} - set(found))
        if missing:
            raise DataError(
                f"{source}: its folds did not validate {len(missing)} cases that those of {_others(sources, source)} "
                f"did: {', '.join(missing[:10])}. Train both on the same splits, or compare without ensembles"
            )
    cases = {case: [found[case] for found in files] for case in files[0]}
    ensemble_cases(project, cases, folder, described, continue_=True)
    writer = described.build_writer(project.kernel)
    PredictionOutput(folder, writer, described.dataset.file_ending).discard_all_but(cases)
    references = find_references(project, described, {case: found[0] for case, found in cases.items()})
    return evaluate_if_changed(project, references, folder, described.dataset)


def _others(sources: Sequence[Path], source: Path) -> str:
    return ", ".join(other.name for other in sources if other != source)


def _cases(candidate: Candidate) -> dict[str, Path]:
    return {case.name: case.prediction for case in candidate.evaluation.cases}


def _folds(project: Project, dataset: str) -> Sequence[int | str]:
    if project.workspace.preprocessed is not None:
        file = project.workspace.splits_file(dataset)
        if file.is_file():
            return range(len(read_splits(file)))
    return FOLDS


def _find_models(
    project: Project,
    root: Path,
    configurations: Sequence[str] | None,
    plans_names: Sequence[str] | None,
    trainers: Sequence[str] | None,
    folds: Sequence[int | str],
) -> list[ModelName]:
    """The models to compare, in nnU-Net's order: by trainer, then configuration, then plans."""
    there = trained_models(root)
    if not there:
        raise UsageError(f"{root}: no trained models. Run: segplug run {root.name}")
    listed = ", ".join(map(str, there))
    trainers = trainers or _usual([m.trainer for m in there], NNUNET_TRAINER, "--trainer", listed)
    plans_names = plans_names or _usual(
        [m.plans for m in there if m.trainer in trainers], DEFAULT_PLANS, "--plans-name", listed
    )
    having = [m for m in there if m.trainer in trainers and m.plans in plans_names]
    wanted = configurations
    if wanted is None:
        known = dict.fromkeys(m.configuration for m in having)
        wanted = [c for c in CONFIGURATIONS if c in known] + [c for c in known if c not in CONFIGURATIONS]
    models = []
    for model in (ModelName(t, p, c) for t in trainers for c in wanted for p in plans_names):
        if model in having:
            unfinished = [fold for fold in folds if not _is_finished(root / str(model), fold)]
            if not unfinished:
                models.append(model)
                continue
            why = "\n".join(f"  {train_command(project.kernel, root / str(model), fold)}" for fold in unfinished)
            text = f"{model}: folds {', '.join(map(str, unfinished))} are not trained and validated. Run:\n{why}"
        else:
            text = f"{root / str(model)}: no such model. There are: {listed}"
        if configurations is not None:
            raise UsageError(text)
        if model in having:
            warnings.warn(f"not compared: {text}", stacklevel=3)
    if not models:
        raise UsageError(f"{root}: no model has all of folds {', '.join(map(str, folds))}. Name others with --fold")
    return models


def _is_finished(model: Path, fold: int | str) -> bool:
    return (model / f"fold_{fold}" / "validation" / "summary.json").is_file()


def _usual(found: Sequence[str], usual: str, option: str, listed: str) -> list[str]:
    names = list(dict.fromkeys(found))
    if usual in names or len(names) == 1:
        return [usual] if usual in names else names
    raise UsageError(f"name what to compare with {option}. There are: {listed}")


def _warn_of_different_cases(candidates: Sequence[Candidate]) -> None:
    first = set(_cases(candidates[0]))
    different = [candidate.name for candidate in candidates if set(_cases(candidate)) != first]
    if different:
        warnings.warn(
            f"{', '.join(different)}: validated on other cases than {candidates[0].name}; their scores do not compare",
            stacklevel=3,
        )
