"""Compare predicted label maps with references: files in folders, or arrays in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError, UsageError
from segplug.model import CaseEvaluation, DatasetDescription, Evaluation, Geometry, Labels, LabelSet
from segplug.protocols import Metric, Reader
from segplug.runtime.case_reading import read_labels
from segplug.runtime.case_work import map_cases
from segplug.runtime.evaluation import SUMMARY, build_metrics, evaluate_case, summarise, write_summary
from segplug.runtime.geometry import differences
from segplug.runtime.label_counts import count_labels
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import IMAGE_ENDINGS, file_names

STAGE = "evaluate"


def evaluate(
    project: Project,
    reference: Path | Mapping[str, Path],
    prediction: Path,
    dataset: DatasetDescription | LabelSet,
    *,
    metrics: Sequence[str] = (),
    allow_missing: bool = False,
    file_ending: str | None = None,
    output: Path | None = None,
) -> Evaluation:
    """Evaluate a folder of predictions and write summary.json.

    Args:
        reference: folder of label maps `CASE<file_ending>`, or a path for each case.
        prediction: folder with predictions of the same names.
        dataset: the data set's description, or its labels alone; then the file ending is that of the references and the
            reader is chosen by the first of them.
        metrics: further metrics beside Dice and IoU; see `runtime.evaluation.build_metrics`.
        allow_missing: leave out cases without a prediction (`Evaluation.missing`) rather than refuse.
        file_ending: of references and predictions, if not that of `dataset`.
        output: where to write; None for `prediction/summary.json`, nnU-Net's place.

    Returns:
        The evaluation; predictions without a reference are in `unexpected`, and in no number. With a description, each
        case tells the labels of its prediction that the data set does not have; they count as background.

    Raises:
        DataError: predictions are missing (all are named), files are damaged, or shape, spacing, origin or direction of
            a prediction is not that of its reference; all such cases are listed.
        UsageError: the file ending cannot be told, or a metric does not exist or take its options.
        PluginError: the reader that `dataset` names does not exist.
    """
    labels = dataset.labels if isinstance(dataset, DatasetDescription) else dataset
    ending = file_ending or (dataset.file_ending if isinstance(dataset, DatasetDescription) else None)
    if ending is None:
        ending = _ending_of(reference)
    references = reference if isinstance(reference, Mapping) else label_maps(reference, ending)
    predictions = label_maps(prediction, ending)
    missing = sorted(set(references) - set(predictions))
    unexpected = sorted(set(predictions) - set(references))
    cases = sorted(set(references) & set(predictions), key=lambda case: predictions[case].name)
    if missing and (not allow_missing or not cases):
        raise DataError(_missing_text(missing, unexpected, prediction, ending))
    if not cases:
        if predictions:
            raise DataError(_unmatched_text(unexpected, prediction, reference))
        raise DataError(f"{prediction}: no label maps named CASE{ending}")
    name = dataset.reader if isinstance(dataset, DatasetDescription) else None
    work = partial(
        _evaluate_files,
        reader=_reader(project, name, references[cases[0]]),
        labels=labels,
        metrics=build_metrics(project.kernel.registry, metrics),
        known=_known_labels(labels) if isinstance(dataset, DatasetDescription) else None,
    )
    files = {case: (references[case], predictions[case]) for case in cases}
    executor = project.executor_for(sum(_size(path) for pair in files.values() for path in pair))
    found = map_cases(project, STAGE, prediction.name, work, files, failed="cannot be evaluated", executor=executor)
    evaluation = summarise(list(found.values()), missing=missing, unexpected=unexpected)
    write_summary(output or prediction / SUMMARY, evaluation)
    project.emit("segplug_evaluated", folder=prediction, evaluation=evaluation)
    return evaluation


def _size(path: Path) -> int:
    """Bytes of a file, of what it holds if it is compressed by gzip; 0 for what is no file: reading it will tell."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            if path.suffix != ".gz" or end < 4:
                return end
            file.seek(end - 4)
            return int.from_bytes(file.read(4), "little")
    except OSError:
        return 0


def evaluate_arrays(
    project: Project,
    pairs: Mapping[str, tuple[Labels | NDArray[Any], Labels | NDArray[Any]]],
    labels: LabelSet,
    *,
    metrics: Sequence[str] = (),
) -> Evaluation:
    """Evaluate label maps in memory; nothing is written.

    Args:
        pairs: case name -> (reference, prediction): `Labels`, or bare integer arrays (z, y, x) or (y, x), which get a
            spacing of 1.
        labels: what the numbers mean.
        metrics: as for `evaluate`.

    Raises:
        DataError: there are no cases, an array holds no integers, or shapes or geometries of a pair differ.
    """
    build = build_metrics(project.kernel.registry, metrics)
    found = []
    for case, (reference, prediction) in pairs.items():
        found.append(
            _evaluate_pair(_as_labels(reference), _as_labels(prediction), (Path(case), Path(case)), labels, build)
        )
    return summarise(found)


def label_maps(folder: Path, ending: str) -> dict[str, Path]:
    """Case name -> file, for every file of a folder with this ending; hidden files are passed over.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one with label maps named CASE{ending}")
    return {n.removesuffix(ending): folder / n for n in file_names(folder, ending) if n.endswith(ending)}


def _ending_of(reference: Path | Mapping[str, Path]) -> str:
    if isinstance(reference, Mapping):
        names = [path.name for path in reference.values()]
    elif reference.is_dir():
        names = [path.name for path in reference.iterdir() if not path.name.startswith(".")]
    else:
        raise DataError(f"{reference}: no such folder; expected one with reference label maps")
    endings = {next((e for e in IMAGE_ENDINGS if name.lower().endswith(e)), None) for name in names} - {None}
    if len(endings) != 1:
        found = f"files ending in {', '.join(sorted(filter(None, endings)))}" if endings else "no image files"
        raise UsageError(f"{reference}: found {found}; say which to compare, e.g. --file-ending .nii.gz")
    return str(endings.pop())


def _missing_text(missing: Sequence[str], unexpected: Sequence[str], prediction: Path, ending: str) -> str:
    listed = ", ".join(missing)
    extra = f" Predictions without a reference: {', '.join(unexpected)}." if unexpected else ""
    return (
        f"{prediction}: no prediction (CASE{ending}) for {len(missing)} of the references: {listed}.{extra} "
        "Predict these cases, or leave them out of the evaluation with --allow-missing"
    )


def _unmatched_text(unexpected: Sequence[str], prediction: Path, reference: Path | Mapping[str, Path]) -> str:
    among = "" if isinstance(reference, Mapping) else f" in {reference}"
    return (
        f"{prediction}: no reference{among} for any of its label maps ({', '.join(unexpected[:10])}"
        f"{' and more' if len(unexpected) > 10 else ''}); expected some of the same names. Give the references of "
        "these cases"
    )


def _reader(project: Project, name: str | None, example: Path) -> Reader:
    name = name or project.kernel.choose("segplug_choose_reader", path=example)
    if name is None:
        readers = ", ".join(project.kernel.registry.names("readers"))
        raise DataError(f"{example}: no reader can read this file; expected one of the formats of {readers}")
    reader: Reader = project.kernel.registry.build("readers", name)
    return reader


def _evaluate_files(
    files: tuple[Path, Path],
    *,
    reader: Reader,
    labels: LabelSet,
    metrics: Mapping[str, Metric],
    known: frozenset[int] | None,
) -> CaseEvaluation:
    """Evaluate one case; runs in a worker."""
    reference, prediction = (read_labels(reader, path) for path in files)
    evaluated = _evaluate_pair(reference, prediction, files, labels, metrics)
    if known is None:
        return evaluated
    unknown = {label: n for label, n in count_labels(prediction.array).items() if label not in known}
    return replace(evaluated, unknown_labels=unknown)


def _known_labels(labels: LabelSet) -> frozenset[int]:
    ignore = () if labels.ignore_label is None else (labels.ignore_label,)
    return frozenset((0, *labels.all_labels, *ignore))


def _evaluate_pair(
    reference: Labels, prediction: Labels, files: tuple[Path, Path], labels: LabelSet, metrics: Mapping[str, Metric]
) -> CaseEvaluation:
    apart = differences(prediction.geometry, prediction.shape, reference.geometry, reference.shape)
    for difference in apart:
        if not difference.aligned:
            raise DataError(
                f"{files[1]}: {difference.what} {difference.found}; expected {difference.expected} as in the reference "
                f"{files[0]}. Predict in the geometry of the image that the reference belongs to"
            )
    return evaluate_case(reference, prediction, labels, metrics, reference_file=files[0], prediction_file=files[1])


def _as_labels(value: Labels | NDArray[Any]) -> Labels:
    if isinstance(value, Labels):
        return value
    array = np.asarray(value)
    return Labels(array[None] if array.ndim == 2 else array, Geometry((1.0,) * 3))
