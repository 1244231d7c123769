"""Average the probabilities of several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from segplug.errors import DataError, UsageError
from segplug.model import Labels, LabelSet, Prediction
from segplug.protocols import Reader
from segplug.runtime.case_reading import read_labels
from segplug.runtime.case_work import map_cases
from segplug.runtime.files import file_hash, value_hash
from segplug.runtime.folder_lock import working_in
from segplug.runtime.prediction_folder import DATASET, FolderDescription, describe_folder
from segplug.runtime.prediction_output import PredictionOutput
from segplug.runtime.probability_average import average_to_labels
from segplug.runtime.probability_file import scratch_array
from segplug.runtime.project import Project

STAGE = "ensemble"
ENDING = ".npz"


@dataclass(frozen=True)
class Ensembled:
    """What became of an ensemble.

    Args:
        folder: where it is.
        made: cases averaged in this run.
        kept: cases that were there already, made from the same files.
    """

    folder: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]


def ensemble_folders(
    project: Project,
    sources: Sequence[Path],
    target: Path,
    *,
    save_probabilities: bool = False,
    continue_: bool = False,
    dataset_json: Path | None = None,
    plans: Path | None = None,
) -> Ensembled:
    """Average the probabilities in several folders of predictions and write label maps.

    Every folder holds `CASE.npz` beside `CASE<ending>`, as prediction with `save_probabilities` leaves them. The files
    are read in pieces, never whole. dataset.json and plans.json of the first folder are put beside the result.

    Args:
        sources: two folders or more.
        target: made if missing.
        save_probabilities: write the mean as `CASE.npz` too.
        continue_: keep cases that are whole and were made from the same files.
        dataset_json, plans: files to use instead of those in the first folder.

    Raises:
        UsageError: there are fewer than two folders, or one does not exist, is given twice or is the target.
        DataError: a folder lacks cases that another has (all are listed), or labels of the folders' data sets differ;
            or cases could not be averaged: they are listed, and all others written.
        PluginError: a reader or writer is missing.
    """
    if len(sources) < 2:
        raise UsageError(f"{len(sources)} folder to ensemble; expected two or more (-i DIR -i DIR)")
    for source in sources:
        if not source.is_dir():
            raise UsageError(f"{source}: no such folder; expected one with predictions and their CASE{ENDING}")
        if source.resolve() == target.resolve():
            raise UsageError(f"{target}: is one of the folders to ensemble; choose another for the result")
    twice = [source for n, source in enumerate(sources) if source.resolve() in {s.resolve() for s in sources[:n]}]
    if twice:
        raise UsageError(f"{twice[0]}: given twice; expected a different folder for each model")
    described = describe_folder(project.kernel, sources[0], dataset_json=dataset_json, plans=plans)
    if dataset_json is None:
        require_same_labels(project, sources, described.dataset.labels)
    return ensemble_cases(
        project,
        _find_cases(sources),
        target,
        described,
        save_probabilities=save_probabilities,
        continue_=continue_,
        subject=", ".join(source.name for source in sources),
    )


def ensemble_cases(
    project: Project,
    cases: Mapping[str, Sequence[Path]],
    target: Path,
    described: FolderDescription,
    *,
    save_probabilities: bool = False,
    continue_: bool = False,
    subject: str = "",
) -> Ensembled:
    """Average the files of each case, which may lie anywhere, beside their label maps; see `ensemble_folders`."""
    ending = described.dataset.file_ending
    work = partial(
        _average,
        reader=described.build_reader(project.kernel),
        labels=described.dataset.labels,
        output=PredictionOutput(target, described.build_writer(project.kernel), ending),
        save_probabilities=save_probabilities,
        continue_=continue_,
    )
    with working_in(target):
        described.copy_to(target)
        items = {case: (case, tuple(files)) for case, files in cases.items()}
        made = map_cases(project, STAGE, subject or target.name, work, items, failed="not ensembled")
    return Ensembled(target, tuple(c for c in made if made[c]), tuple(c for c in made if not made[c]))


def _average(
    item: tuple[str, tuple[Path, ...]],
    *,
    reader: Reader,
    labels: LabelSet,
    output: PredictionOutput,
    save_probabilities: bool,
    continue_: bool,
) -> bool:
    """Average one case; runs in a worker. False if it was there already."""
    case, files = item
    made_from = _made_from(files, labels, save_probabilities)
    if continue_ and output.is_whole(case, made_from):
        return False
    beside = _label_map(reader, files, output.label_file(case).name)
    into = scratch_array((len(labels.output_values), *beside.shape), output.folder) if save_probabilities else None
    array = average_to_labels(files, labels, expected=beside.shape, into=into)
    output.write(case, Prediction(Labels(array, beside.geometry), into), made_from)
    return True


def _made_from(files: Sequence[Path], labels: LabelSet, save_probabilities: bool) -> dict[str, Any]:
    try:
        hashes = [file_hash(file) for file in files]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None
    meaning = [list(labels.values.values()), labels.regions_class_order, labels.ignore_label]
    return {"probabilities": hashes, "labels": value_hash(meaning), "save_probabilities": save_probabilities}


def _label_map(reader: Reader, files: Sequence[Path], name: str) -> Labels:
    """The label map beside one of the files: it says where the image lies."""
    there = [file.with_name(name) for file in files if file.with_name(name).exists()]
    if not there:
        raise DataError(
            f"{files[0].with_name(name)}: no such label map beside the probabilities; expected it for the image's "
            "place in the world. Predict this case again"
        )
    return read_labels(reader, there[0])


def _find_cases(sources: Sequence[Path]) -> dict[str, list[Path]]:
    """Case -> its file in each folder."""
    names = [{file.name.removesuffix(ENDING) for file in source.glob(f"*{ENDING}")} for source in sources]
    every = sorted({name for found in names for name in found if not name.startswith(".")})
    if not every:
        raise DataError(
            f"{', '.join(map(str, sources))}: no probabilities (CASE{ENDING}). Predict with --save-probabilities"
        )
    lacking = {source: sorted(set(every) - found) for source, found in zip(sources, names, strict=True)}
    if any(lacking.values()):
        lines = "\n".join(f"  {source}: {', '.join(missing)}" for source, missing in lacking.items() if missing)
        raise DataError(
            f"not every folder has probabilities (CASE{ENDING}) of the same cases. Missing:\n{lines}\nPredict them "
            "with --save-probabilities, or remove these cases from the other folders"
        )
    return {name: [source / f"{name}{ENDING}" for source in sources] for name in every}


def require_same_labels(project: Project, sources: Sequence[Path], labels: LabelSet) -> None:
    """Channels of the same number must mean the same; nnU-Net does not look.

    Args:
        sources: folders with a dataset.json; one without is passed over.
        labels: of the first.

    Raises:
        DataError: they differ; the message shows both.
    """
    for source in sources[1:]:
        if not (source / DATASET).is_file():
            continue
        other = describe_folder(project.kernel, source).dataset.labels
        if (list(other.values.values()), other.regions_class_order) != (
            list(labels.values.values()),
            labels.regions_class_order,
        ):
            raise DataError(
                f"{source / DATASET}: labels {dict(other.values)}; expected {dict(labels.values)} as in {sources[0]}. "
                "Only models of the same classes can be averaged; --dataset-json overrules"
            )
