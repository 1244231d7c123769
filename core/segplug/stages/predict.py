"""Segment images with a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import segplug
from segplug.errors import DataError, UsageError
from segplug.kernel import provenance
from segplug.model import Image, Labels, Prediction
from segplug.protocols import PredictionSettings
from segplug.runtime.files import write_json
from segplug.runtime.folder_lock import working_in
from segplug.runtime.parts import WHOLE, Part
from segplug.runtime.prediction_cases import STAGE, CaseRun
from segplug.runtime.prediction_engine import Engine
from segplug.runtime.prediction_output import PredictionOutput, find_writer
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import scan_cases

if TYPE_CHECKING:
    from segplug.runtime.trained_model import TrainedModel


@dataclass(frozen=True)
class FolderPrediction:
    """What became of a folder of images.

    Args:
        folder: where the predictions are.
        predicted: cases predicted in this run.
        kept: cases that were there already, made from the same images by the same model and settings.
    """

    folder: Path
    predicted: tuple[str, ...]
    kept: tuple[str, ...]


def predict_images(
    project: Project,
    images: Iterable[Image],
    model: Path | TrainedModel,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "final",
    settings: PredictionSettings | None = None,
    predictor: str = "torch",
    previous: Iterable[Labels] | None = None,
) -> Iterator[Prediction]:
    """Predict images in memory, one after the other as the result is iterated over.

    Args:
        images: raw images, as a reader returns them: float32 (channels, z, y, x) with their spacing.
        model, folds, checkpoint, settings, predictor: see `predict_folder`. With `save_probabilities` the probabilities
            are arrays mapped from files that vanish with them.
        previous: for a cascade, what the previous stage predicted for each image; None to have its model do it.

    Raises:
        UsageError, CheckpointError, PluginError: see `predict_folder`; at once.
        DataError: an image cannot be predicted; when its turn comes.
    """
    engine = Engine(
        project,
        model,
        folds=folds,
        checkpoint=checkpoint,
        settings=settings,
        predictor=predictor,
        alone=previous is not None,
    )
    return _predict_each(project, images, engine, repeat(None) if previous is None else previous)


def _predict_each(
    project: Project, images: Iterable[Image], engine: Engine, previous: Iterable[Labels | None]
) -> Iterator[Prediction]:
    for number, (image, labels) in enumerate(zip(images, previous, strict=False)):
        prediction = engine.predict(engine.prepare(image, labels))
        project.kernel.emit("segplug_case_predicted", case=f"image {number}", prediction=prediction, path=None)
        yield prediction


def predict_folder(
    project: Project,
    source: Path,
    target: Path,
    model: Path | TrainedModel,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "final",
    settings: PredictionSettings | None = None,
    predictor: str = "torch",
    continue_: bool = False,
    previous_stage: Path | None = None,
    keep_previous: Path | None = None,
    part: Part = WHOLE,
) -> FolderPrediction:
    """Predict every case in a folder of images and write label maps with the geometry of the input.

    The next case is read and preprocessed, and the last one written, while the network works; with `project.workers` 0
    or a memory limit one thing is done at a time. Beside the predictions stand dataset.json, plans.json and
    predict_from_raw_data_args.json, as nnU-Net leaves them.

    Args:
        source: folder of images named CASE_0000.ext.
        target: folder to write to, made if missing.
        model: model folder, or a model that is loaded.
        folds: whose networks are averaged; None for all that there are.
        checkpoint: `final`, `best` or `latest`.
        settings: None for the defaults.
        predictor: name of the inference engine.
        continue_: keep predictions that are whole and were made from the same images by the same model and settings.
        previous_stage: for a cascade, folder with the label maps that the previous stage predicted for these images.
            None to have the models of the stages before, which lie beside `model`, predict each image first, with the
            same folds and checkpoint.
        keep_previous: folder to keep what they predict in, one of its own for each configuration.
        part: which of the cases to predict; calls for other parts may write to the same folder at the same time.

    Raises:
        UsageError: the folder of images, the model folder, a fold, a checkpoint or the device is not there; or no image
            can be predicted in the memory that the settings allow.
        CheckpointError: a checkpoint is damaged, or does not fit the plan.
        PluginError: a component is missing, or other plugins provide it than at training.
        DataError: cases lack files, are damaged, need too much memory, or made the network's output infinite. All of
            them are told, after the others have been predicted and written.
    """
    require_image_folder(source)
    if source.resolve() == target.resolve():
        raise UsageError(f"{target}: images and predictions cannot share a folder")
    engine = Engine(
        project,
        model,
        folds=folds,
        checkpoint=checkpoint,
        settings=settings,
        predictor=predictor,
        scratch=target,
        alone=previous_stage is not None,
    )
    plan, dataset = engine.model.plan, engine.model.dataset
    configuration = engine.model.configuration
    for folder in filter(None, (previous_stage, keep_previous)):
        if configuration.previous_stage is None:
            raise UsageError(f"{folder}: configuration {configuration.name} takes no predictions of a previous stage")
    if previous_stage is not None and not previous_stage.is_dir():
        raise UsageError(
            f"{previous_stage}: no such folder; expected the predictions of {configuration.previous_stage}"
        )
    cases, findings = scan_cases(source, dataset.file_ending, dataset.num_channels)
    failures = {f.case or str(f.file): str(f).removeprefix("error: ") for f in findings if f.is_error}
    if not cases and not failures:
        raise DataError(f"{source}: no images; expected files named CASE_0000{dataset.file_ending}")
    mine = part.of(sorted({*cases, *failures}))
    cases = {name: case for name, case in cases.items() if name in mine}
    failures = {name: text for name, text in failures.items() if name in mine}
    engine.start()
    writer = find_writer(project.kernel, plan.reader.name, dataset.file_ending, dataset.labels)
    output = PredictionOutput(target, writer, dataset.file_ending)
    run = CaseRun(project, engine, output, continue_, previous_stage, keep_previous)
    subject = f"{source} -> {target}" if part.whole else f"{source} -> {target}, {part}"
    with working_in(target, part), project.stage(STAGE, subject, len(cases)):
        _write_descriptions(source, target, engine, continue_, previous_stage, part)
        run.all(list(cases.values()), overlapped=project.workers > 0 and engine.settings.max_memory_gb is None)
        failures |= run.failures
        if failures:
            listed = "\n".join(f"  {text}" for text in failures.values())
            total = len(cases.keys() | failures.keys())
            raise DataError(f"{len(failures)} of {total} cases not predicted; all others are in {target}:\n{listed}")
    return FolderPrediction(target, tuple(run.predicted), tuple(run.kept))


def _write_descriptions(
    source: Path, target: Path, engine: Engine, continue_: bool, previous_stage: Path | None, part: Part
) -> None:
    """What nnU-Net leaves beside predictions, and needs there for evaluation and postprocessing."""
    model, settings = engine.model, engine.settings
    write_json(target / "dataset.json", model.dataset.raw)
    write_json(target / "plans.json", model.raw_plan)
    arguments = {
        "list_of_lists_or_source_folder": str(source),
        "output_folder_or_list_of_truncated_output_files": str(target),
        "save_probabilities": settings.save_probabilities,
        "overwrite": not continue_,
        "folder_with_segs_from_prev_stage": None if previous_stage is None else str(previous_stage),
        "num_parts": part.count,
        "part_id": part.number - 1,
        "segplug": {
            "version": segplug.__version__,
            "model": str(model.folder),
            "folds": list(model.folds),
            "checkpoint": model.checkpoint,
            "settings": asdict(settings),
            "provenance": provenance.record(engine.used),
        },
    }
    write_json(target / "predict_from_raw_data_args.json", arguments)


def require_image_folder(source: Path) -> None:
    """Refuse what is no folder.

    Raises:
        UsageError: telling what to give.
    """
    if not source.is_dir():
        found = "a file; expected its folder," if source.exists() else "no such folder; expected one"
        raise UsageError(f"{source}: {found} with images named CASE_0000.ext")
