"""A model, what surrounds it, and the inference engine that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.errors import UsageError
from segplug.kernel import Provided
from segplug.model import Image, Labels, Prediction
from segplug.protocols import PredictionSettings, Predictor
from segplug.runtime.project import Project
from segplug.runtime.stage_predictions import previous_model_folder
from segplug.runtime.user_choice import named_by_user

if TYPE_CHECKING:
    from segplug.runtime.prediction_pipeline import PredictionPipeline, PreparedImage
    from segplug.runtime.trained_model import TrainedModel


class Engine:
    """A model with its pipeline and the inference engine that runs it.

    Args:
        model: a model folder, or a model that is loaded; `folds` and `checkpoint` are for a folder.
        settings: None for the defaults.
        predictor: name of the inference engine.
        scratch: folder on whose disk probabilities are kept meanwhile.
        alone: leave out the model of the previous stage; its predictions are then given with each image.

    Raises:
        UsageError, CheckpointError, PluginError, DataError: see `segplug.stages.predict.predict_folder`.
    """

    def __init__(
        self,
        project: Project,
        model: Path | TrainedModel,
        *,
        folds: Sequence[int | str] | None = None,
        checkpoint: str = "final",
        settings: PredictionSettings | None = None,
        predictor: str = "torch",
        scratch: Path | None = None,
        alone: bool = False,
    ) -> None:
        from segplug.runtime.prediction_pipeline import PredictionPipeline
        from segplug.runtime.trained_model import TrainedModel

        self._registry = project.kernel.registry
        self.settings = settings or PredictionSettings()
        allow_change = self.settings.allow_provider_change
        self.model: TrainedModel = (
            model
            if isinstance(model, TrainedModel)
            else TrainedModel(self._registry, model, folds, checkpoint, allow_provider_change=allow_change)
        )
        self.pipeline: PredictionPipeline = PredictionPipeline(
            self._registry, self.model, self.settings, scratch=scratch
        )
        with named_by_user("predictor"):
            self._provided = self._registry.resolve("predictors", predictor)
        self.previous: Engine | None = None
        if self.model.configuration.previous_stage is not None and not alone:
            self.previous = Engine(
                project,
                _previous_model(self.model),
                folds=self.model.folds if folds is not None else None,
                checkpoint=self.model.checkpoint,
                settings=replace(self.settings, save_probabilities=False),
                predictor=predictor,
                scratch=scratch,
            )

    def start(self) -> None:
        """Get ready before there is an image, so that what cannot work is refused at once.

        Raises:
            UsageError: the device or precision is not to be had, or a limit of memory cannot be kept for any image.
            CheckpointError: the weights do not fit the plan.
        """
        if self.previous is not None:
            self.previous.start()
        self.pipeline.measure(self.predictor.predict)

    def prepare(self, image: Image, previous: Labels | None = None, *, consumed: bool = False) -> PreparedImage:
        """Preprocess an image for the network that sees it first: in a cascade without `previous`, the first stage's.

        Args:
            consumed: the image is not needed any more, and its array may be written over.

        Raises:
            DataError: see `PredictionPipeline.prepare`.
        """
        if self.previous is not None and previous is None:
            return self.previous.prepare(image)  # the further stages see it too
        return self.pipeline.prepare(image, previous, consumed=consumed)

    def predict(self, prepared: PreparedImage, keep: Callable[[Engine, Prediction], None] | None = None) -> Prediction:
        """Predict an image that `prepare` returned, stage by stage.

        Args:
            keep: called with each stage before the last and its prediction.

        Raises:
            DataError: see `PredictionPipeline.run`.
        """
        if self.previous is None or len(prepared.data) == self.model.input_channels:
            return self.predictor.predict(prepared)
        earlier = self.previous.predict(prepared, keep)
        if keep is not None:
            keep(self.previous, earlier)
        return self.predictor.predict(self.pipeline.prepare(prepared, earlier.labels))

    @cached_property
    def predictor(self) -> Predictor:
        """The inference engine, its networks on the device; made when it is first asked for.

        Raises:
            UsageError: the device or precision is not to be had.
            CheckpointError: the weights do not fit the plan.
        """
        built: Predictor = self._registry.build(
            "predictors",
            self._provided.qualified_name,
            model=self.model,
            settings=self.settings,
            pipeline=self.pipeline,
        )
        return built

    @property
    def used(self) -> list[Provided]:
        """The components at work."""
        plan, configuration = self.model.plan, self.model.configuration
        names = [
            ("readers", plan.reader.name),
            *(("normalizers", ref.name) for ref in configuration.normalization),
            ("resamplers", configuration.resample_data.name),
            ("resamplers", configuration.resample_probabilities.name),
            ("architectures", configuration.architecture.name),
        ]
        found = [self._registry.resolve(kind, name) for kind, name in dict.fromkeys(names)]
        return [*([] if self.previous is None else self.previous.used), *found, self._provided]

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What decides a prediction beside the image, as JSON values."""
        decisive = {"step_size", "mirroring", "precision", "save_probabilities"}
        return {
            **({} if self.previous is None else {"previous": self.previous.recipe}),
            "model": self.model.identity,
            "predictor": self._provided.qualified_name,
            "settings": {name: value for name, value in asdict(self.settings).items() if name in decisive},
        }


def _previous_model(model: TrainedModel) -> Path:
    """The model folder of the previous stage, where training left it: beside the model's own.

    Raises:
        UsageError: it is not there, or the folds were trained on predictions of different ones.
    """
    previous = model.configuration.previous_stage
    own = model.folder.resolve()
    if len(model.previous_models) > 1:
        raise UsageError(
            f"{own}: its folds were trained on predictions of different models: {', '.join(model.previous_models)}. "
            "Predict with --folds of one of them, or train them alike"
        )
    folder = previous_model_folder(own, model.configuration, next(iter(model.previous_models), None))
    if folder == own or not folder.is_dir():
        raise UsageError(
            f"configuration {model.configuration.name} takes the predictions of {previous}, whose model is not at "
            f"{folder}. Put it there, or predict with it first and give its label maps with --previous-stage DIR"
        )
    return folder
