"""Decide on validation predictions what clean-up helps, and apply it to others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from segplug.errors import DataError, UsageError
from segplug.model import ComponentRef, Evaluation, LabelSet, Prediction
from segplug.protocols import Decision, Postprocessor, Reader
from segplug.runtime.case_reading import read_labels
from segplug.runtime.case_work import map_cases
from segplug.runtime.component_text import component_of_user
from segplug.runtime.files import file_hash, value_hash
from segplug.runtime.folder_lock import working_in
from segplug.runtime.label_pairs import LabelPairs
from segplug.runtime.postprocessing_file import (
    DEFAULT_POSTPROCESSOR,
    POSTPROCESSING,
    applied_by,
    build_postprocessor,
    decision_file,
    read_decision,
    write_decision,
)
from segplug.runtime.prediction_folder import describe_folder
from segplug.runtime.prediction_output import PredictionOutput
from segplug.runtime.project import Project
from segplug.runtime.user_choice import named_by_user
from segplug.stages.crossval import evaluate_if_changed
from segplug.stages.evaluate import label_maps

FIT, APPLY = "fit postprocessing", "postprocess"
POSTPROCESSED = "postprocessed"
"""Folder of the cleaned-up predictions, within that of the predictions that were decided on."""


@dataclass(frozen=True)
class FittedPostprocessing:
    """What was decided.

    Args:
        file: postprocessing.json.
        decision: its content.
        before, after: the evaluation of the predictions as they were and cleaned up.
    """

    file: Path
    decision: Decision
    before: Evaluation
    after: Evaluation


@dataclass(frozen=True)
class Postprocessed:
    """What became of a folder.

    Args:
        folder: where the cleaned-up label maps are.
        made: cases cleaned up in this run.
        kept: cases that were there already, made from the same predictions by the same decision.
    """

    folder: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]


def fit_postprocessing(
    project: Project,
    prediction: Path,
    reference: Path | Mapping[str, Path],
    *,
    postprocessor: str | ComponentRef = DEFAULT_POSTPROCESSOR,
    dataset_json: Path | None = None,
    plans: Path | None = None,
) -> FittedPostprocessing:
    """Decide on predictions of cases that were not trained on, as those of a cross-validation.

    Writes `postprocessing.json` and `summary.json` beside the predictions, and what they become, with its own summary,
    to `postprocessed/`.

    Args:
        prediction: folder of label maps with dataset.json and plans.json.
        reference: folder of label maps of the same names, or a path for each case. Cases without a prediction are left
            out.
        postprocessor: the component, or its text `NAME,option=VALUE,...`.
        dataset_json, plans: files to use instead of those beside the predictions.

    Raises:
        UsageError: there is no such folder or postprocessor, or it does not take an option.
        DataError: there are no predictions, or files are missing or damaged.
        PluginError: the postprocessor cannot be loaded, or its decision is not JSON.
    """
    chosen = component_of_user(project.kernel.registry, "postprocessors", postprocessor, "postprocessor")
    described = describe_folder(project.kernel, prediction, dataset_json=dataset_json, plans=plans)
    dataset = described.dataset
    provided = project.kernel.registry.resolve("postprocessors", chosen.name)
    with named_by_user("postprocessor"):
        made: Postprocessor = project.kernel.registry.build("postprocessors", chosen)
    references = reference if isinstance(reference, Mapping) else label_maps(reference, dataset.file_ending)
    before = evaluate_if_changed(project, references, prediction, dataset)
    pairs = LabelPairs(
        project, described.build_reader(project.kernel), [(c.reference, c.prediction) for c in before.cases]
    )
    with project.stage(FIT, prediction.name):
        decision = made.fit(pairs, dataset.labels)
    file = prediction / POSTPROCESSING
    write_decision(file, decision, provided, chosen.options)
    target = prediction / POSTPROCESSED
    apply_postprocessing(project, prediction, target, file, dataset_json=dataset_json, plans=plans, continue_=True)
    PredictionOutput(target, described.build_writer(project.kernel), dataset.file_ending).discard_all_but(
        case.name for case in before.cases
    )
    after = evaluate_if_changed(project, references, target, dataset)
    return FittedPostprocessing(file, decision, before, after)


def apply_postprocessing(
    project: Project,
    source: Path,
    target: Path,
    decision: Path,
    *,
    dataset_json: Path | None = None,
    plans: Path | None = None,
    continue_: bool = False,
) -> Postprocessed:
    """Clean up every label map of a folder as was decided, and write them to another.

    Args:
        source: folder of label maps with dataset.json and, but for nnU-Net's ensembles, plans.json.
        target: made if missing.
        decision: postprocessing.json of segplug or nnU-Net, or the folder it lies in.
        dataset_json, plans: files to use instead of those in `source`.
        continue_: keep cases that are whole and were made from the same label maps by the same decision.

    Raises:
        UsageError: a folder does not exist, both are the same, or the decision is a pickle.
        DataError: the decision is missing or no such, there are no label maps, or some are damaged: they are listed,
            and all others written.
        PluginError: there is no such postprocessor, reader or writer.
    """
    if source.resolve() == target.resolve():
        raise UsageError(f"{target}: choose another folder for the result than that of the predictions")
    described = describe_folder(project.kernel, source, dataset_json=dataset_json, plans=plans)
    content, chosen = read_decision(decision)
    postprocessor = build_postprocessor(project.kernel.registry, decision)
    maps = label_maps(source, described.dataset.file_ending)
    if not maps:
        raise DataError(f"{source}: no label maps named CASE{described.dataset.file_ending}")
    work = partial(
        _clean_up,
        reader=described.build_reader(project.kernel),
        labels=described.dataset.labels,
        postprocessor=postprocessor,
        decision=content,
        by={**applied_by(chosen), "decision": value_hash([content[key] for key in _decisive(content)])},
        file=decision_file(decision),
        output=PredictionOutput(target, described.build_writer(project.kernel), described.dataset.file_ending),
        continue_=continue_,
    )
    with working_in(target):
        described.copy_to(target)
        made = map_cases(
            project, APPLY, source.name, work, dict(zip(maps, maps.items(), strict=True)), failed="left out"
        )
    return Postprocessed(target, tuple(c for c in made if made[c]), tuple(c for c in made if not made[c]))


def _decisive(decision: Mapping[str, Any]) -> list[str]:
    """What of a decision is applied: all but the scores that led to it."""
    return sorted(set(decision) - {"input_folder", "postprocessed"})


def _clean_up(
    item: tuple[str, Path],
    *,
    reader: Reader,
    labels: LabelSet,
    postprocessor: Postprocessor,
    decision: Decision,
    by: Mapping[str, str],
    file: Path,
    output: PredictionOutput,
    continue_: bool,
) -> bool:
    """Clean up one case; runs in a worker. False if it was there already."""
    case, path = item
    made_from = {**by, "label_map": file_hash(path)}
    if continue_ and output.is_whole(case, made_from):
        return False
    prediction = read_labels(reader, path)
    try:
        cleaned = postprocessor.apply(prediction, decision, labels)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    output.write(case, Prediction(cleaned), made_from)
    return True
