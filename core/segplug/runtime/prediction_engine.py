"""A model, what surrounds it, and the inference engine that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.kernel import Provided
from segplug.protocols import PredictionSettings, Predictor
from segplug.runtime.project import Project

if TYPE_CHECKING:
    from segplug.runtime.prediction_pipeline import PredictionPipeline
    from segplug.runtime.trained_model import TrainedModel


class Engine:
    """A model with its pipeline and the inference engine that runs it.

    Args:
        model: a model folder, or a model that is loaded; `folds` and `checkpoint` are for a folder.
        settings: None for the defaults.
        predictor: name of the inference engine.
        scratch: folder on whose disk probabilities are kept meanwhile.

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
        self._provided = self._registry.resolve("predictors", predictor)

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
        return [*found, self._provided]

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What decides a prediction beside the image, as JSON values."""
        decisive = {"step_size", "mirroring", "precision", "save_probabilities"}
        return {
            "model": self.model.identity,
            "predictor": self._provided.qualified_name,
            "settings": {name: value for name, value in asdict(self.settings).items() if name in decisive},
        }
