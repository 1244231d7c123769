"""Predict and evaluate the validation cases of a trained fold, from their preprocessed images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError, PluginError
from segplug.model import Evaluation, Prediction, TrainedFold
from segplug.protocols import PredictionSettings, Store
from segplug.runtime.cascade import NextStage
from segplug.runtime.case_reading import read_labels
from segplug.runtime.prediction_engine import Engine
from segplug.runtime.prediction_output import PredictionOutput, find_writer
from segplug.runtime.preprocessing import geometry_from_json
from segplug.runtime.processes import ALONE, Processes
from segplug.runtime.project import Project
from segplug.runtime.stage_predictions import StagePredictions
from segplug.stages.evaluate import evaluate

if TYPE_CHECKING:
    from segplug.runtime.prediction_pipeline import PreparedImage

STAGE = "validate"


def validate_fold(
    project: Project,
    trained: TrainedFold,
    cases: Sequence[str],
    store: Store,
    *,
    settings: PredictionSettings | None = None,
    predictor: str = "torch",
    previous: StagePredictions | None = None,
    next_stages: Sequence[NextStage] = (),
    processes: Processes = ALONE,
) -> Evaluation | None:
    """Write `validation/CASE<ending>` for each case and `validation/summary.json`, as nnU-Net does after training.

    Predictions that are whole and were made from the same images by the same weights and settings are kept. For each
    configuration that builds on this one, a label map at its preprocessed shape goes to `predicted_next_stage/`; cases
    that are not preprocessed for it yet are left out, with a warning.

    Args:
        trained: a fold with `checkpoint_final.pth`; its model folder has plans.json and dataset.json.
        cases: the fold's validation cases.
        store: their preprocessed images.
        settings: None for nnU-Net's: half a patch between tiles, mirroring.
        predictor: name of the inference engine.
        previous: in a cascade, what the stage before predicted for the cases.
        next_stages: see `segplug.runtime.cascade.next_stages`.
        processes: that divide the cases among them. The first one evaluates when all are done.

    Returns:
        The evaluation; None in other processes than the first.

    Raises:
        UsageError, CheckpointError, PluginError: the model cannot be used, see `segplug.stages.predict`.
        DataError: a case or its reference is missing or damaged, or the network's output is not finite.
    """
    engine = Engine(
        project, trained.model_folder, folds=[trained.fold], settings=settings, predictor=predictor, alone=True
    )
    model = engine.model
    ending = model.dataset.file_ending
    writer = find_writer(project.kernel, model.plan.reader.name, ending, model.dataset.labels)
    output = PredictionOutput(trained.validation_folder, writer, ending)
    if processes.first:
        _tell_left_out(next_stages, cases, model.dataset.name)
    subject = f"{model.dataset.name} {model.configuration.name} fold {trained.fold}"
    mine, predicted = processes.mine(cases), []
    with project.stage(STAGE, subject, len(mine)):
        for done, case in enumerate(mine, start=1):
            made_from = {**engine.recipe, "image": store.made_from(case)}
            if previous is not None:
                made_from["previous"] = previous.state([case])
            whole = output.is_whole(case, made_from)
            stale = [
                stage
                for stage in next_stages
                if stage.wanted([case], trained.fold)
                and not stage.predictions.is_whole(case, _origin(stage, case, made_from, trained))
            ]
            if stale or not whole:
                prediction = engine.predictor.predict(_prepared(store, case, engine, previous, stale))
                if not whole:
                    path = output.write(case, prediction, made_from)
                    project.emit("segplug_case_predicted", case=case, prediction=prediction, path=path)
                    predicted.append(case)
                for stage in stale:
                    labels = _for_stage(stage, prediction, predictor)
                    origin = _origin(stage, case, made_from, trained)
                    stage.predictions.write(case, labels, stage.configuration.patch_size, origin)
            project.progress(STAGE, case, done, len(mine))
        _tell_others(project, engine, output, processes.told(predicted))
    if not processes.first:
        return None
    references = project.workspace.reference_folder(model.dataset.name)
    files = {case: references / f"{case}{ending}" for case in cases}
    missing = [str(file) for file in files.values() if not file.exists()]
    if missing:
        raise DataError(
            f"{len(missing)} references are missing: {', '.join(missing[:5])}. "
            f"Run: segplug preprocess {model.dataset.name}"
        )
    return evaluate(project, files, trained.validation_folder, model.dataset)


def _tell_others(
    project: Project, engine: Engine, output: PredictionOutput, predicted: Sequence[Sequence[str]]
) -> None:
    """Tell the event hooks of what other processes than the first have predicted."""
    reader = project.kernel.registry.build("readers", engine.model.plan.reader)
    for case in sorted(case for cases in predicted[1:] for case in cases):
        path = output.label_file(case)
        prediction = Prediction(read_labels(reader, path))
        project.emit("segplug_case_predicted", case=case, prediction=prediction, path=path)


def _prepared(
    store: Store, name: str, engine: Engine, previous: StagePredictions | None, wanted: Sequence[NextStage]
) -> PreparedImage:
    """A stored case as the inference engine takes it; the raw image itself is not needed."""
    from segplug.runtime.prediction_pipeline import PreparedImage, with_previous

    case = store.open(name)
    start = (0,) * len(case.shape)
    data, _ = case.read(start, case.shape)
    if previous is not None:
        data = with_previous(data, previous.read(name, start, case.shape), engine.model.dataset.labels)
    properties: dict[str, Any] = dict(case.properties)
    return PreparedImage(
        np.zeros((case.channels, 0, 0, 0), np.float32),
        geometry_from_json(properties["geometry"]),
        data=data,
        properties=properties,
        next_shapes={stage.configuration.name: stage.store.open(name).shape for stage in wanted},
    )


def _origin(stage: NextStage, case: str, made_from: Mapping[str, Any], trained: TrainedFold) -> dict[str, Any]:
    """What decides a prediction for the next stage. A case has one there, of whichever fold."""
    return {**made_from, "fold": trained.fold, "shape": list(stage.store.open(case).shape)}


def _for_stage(stage: NextStage, prediction: Prediction, predictor: str) -> NDArray[Any]:
    name = stage.configuration.name
    if name not in prediction.next_stage:
        raise PluginError(
            f"predictor {predictor!r} made no prediction for {name}, which builds on this configuration. It has to "
            "return what the pipeline's run returns"
        )
    return prediction.next_stage[name]


def _tell_left_out(stages: Sequence[NextStage], cases: Sequence[str], dataset: str) -> None:
    for stage in stages:
        left_out = [case for case in cases if stage.store.made_from(case) is None]
        if left_out:
            name = stage.configuration.name
            warnings.warn(
                f"{len(left_out)} cases are not predicted for {name}, because they are not preprocessed for it. To "
                f"train {name}, run: segplug preprocess {dataset} -c {name}; then this training with --continue",
                stacklevel=3,
            )
