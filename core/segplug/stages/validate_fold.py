"""Predict and evaluate the validation cases of a trained fold, from their preprocessed images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segplug.errors import DataError
from segplug.model import Evaluation, TrainedFold
from segplug.protocols import PredictionSettings, Store
from segplug.runtime.prediction_engine import Engine
from segplug.runtime.prediction_output import PredictionOutput, find_writer
from segplug.runtime.preprocessing import geometry_from_json
from segplug.runtime.project import Project
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
) -> Evaluation:
    """Write `validation/CASE<ending>` for each case and `validation/summary.json`, as nnU-Net does after training.

    Predictions that are whole and were made from the same images by the same weights and settings are kept.

    Args:
        trained: a fold with `checkpoint_final.pth`; its model folder has plans.json and dataset.json.
        cases: the fold's validation cases.
        store: their preprocessed images.
        settings: None for nnU-Net's: half a patch between tiles, mirroring.
        predictor: name of the inference engine.

    Raises:
        UsageError, CheckpointError, PluginError: the model cannot be used, see `segplug.stages.predict`.
        DataError: a case or its reference is missing or damaged, or the network's output is not finite.
    """
    engine = Engine(project, trained.model_folder, folds=[trained.fold], settings=settings, predictor=predictor)
    model = engine.model
    ending = model.dataset.file_ending
    writer = find_writer(project.kernel, model.plan.reader.name, ending)
    output = PredictionOutput(trained.validation_folder, writer, ending)
    subject = f"{model.dataset.name} {model.configuration.name} fold {trained.fold}"
    with project.stage(STAGE, subject, len(cases)):
        for done, case in enumerate(cases, start=1):
            made_from = {**engine.recipe, "image": store.made_from(case)}
            if not output.is_whole(case, made_from):
                prediction = engine.predictor.predict(_prepared(store, case))
                path = output.write(case, prediction, made_from)
                project.kernel.emit("segplug_case_predicted", case=case, prediction=prediction, path=path)
            project.progress(STAGE, case, done, len(cases))
    references = project.workspace.reference_folder(model.dataset.name)
    files = {case: references / f"{case}{ending}" for case in cases}
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} references are missing: {', '.join(missing[:5])}. "
            f"Run: segplug preprocess {model.dataset.name}"
        )
    return evaluate(project, files, trained.validation_folder, model.dataset)


def _prepared(store: Store, name: str) -> PreparedImage:
    """A stored case as the inference engine takes it; the raw image itself is not needed."""
    from segplug.runtime.prediction_pipeline import PreparedImage

    case = store.open(name)
    data, _ = case.read((0,) * len(case.shape), case.shape)
    properties: dict[str, Any] = dict(case.properties)
    nothing = np.zeros((case.channels, 0, 0, 0), np.float32)
    return PreparedImage(nothing, geometry_from_json(properties["geometry"]), data=data, properties=properties)
