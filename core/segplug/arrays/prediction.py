"""A trained model that segments images in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from numpy.typing import ArrayLike

from segplug.arrays.images import image as make_image
from segplug.arrays.images import usual_project
from segplug.errors import UsageError
from segplug.model import Configuration, Image, Labels, LabelSet, Plan, Prediction
from segplug.protocols import Model, PredictionSettings
from segplug.runtime.prediction_engine import Engine
from segplug.runtime.project import Project


def load_model(
    folder: str | Path,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "final",
    settings: PredictionSettings | None = None,
    predictor: str = "torch",
    project: Project | None = None,
) -> LoadedModel:
    """Load a model that segplug or nnU-Net trained. Its weights are read when the first image is predicted, and kept.

    Args:
        folder: `<Trainer>__<Plans>__<Configuration>`.
        folds: whose networks are averaged; None for all that there are.
        checkpoint: `final`, `best` or `latest`.
        settings: device, precision, step of the window, mirroring; None for the defaults.
        predictor: name of the inference engine.

    Raises:
        UsageError: the folder, a fold, a checkpoint or the device is not there; the message lists what is.
        CheckpointError: a checkpoint is damaged.
        DataError: plans.json or dataset.json is damaged.
        PluginError: the model needs plugins that are not here.
    """
    return LoadedModel(project or usual_project(), Path(folder).expanduser(), folds, checkpoint, settings, predictor)


class LoadedModel:
    """A model, its networks on the device. Made by `load_model`. Predict from one thread at a time."""

    def __init__(
        self,
        project: Project,
        folder: Path,
        folds: Sequence[int | str] | None,
        checkpoint: str,
        settings: PredictionSettings | None,
        predictor: str,
    ) -> None:
        self._project = project
        self._predictor = predictor
        plain = replace(settings or PredictionSettings(), save_probabilities=False)
        self._engines = {
            False: Engine(project, folder, folds=folds, checkpoint=checkpoint, settings=plain, predictor=predictor)
        }

    def __repr__(self) -> str:
        return f"LoadedModel({self.folder}, folds={list(self.folds)})"

    @property
    def trained(self) -> Model:
        """What an inference engine gets: the networks themselves, plan, data set, axes to mirror along."""
        return self._engines[False].model

    @property
    def folder(self) -> Path:
        return self._engines[False].model.folder

    @property
    def folds(self) -> tuple[int | str, ...]:
        """Whose networks are averaged."""
        return tuple(self._engines[False].model.folds)

    @property
    def plan(self) -> Plan:
        return self._engines[False].model.plan

    @property
    def configuration(self) -> Configuration:
        return self._engines[False].model.configuration

    @property
    def labels(self) -> LabelSet:
        """What the numbers of a predicted label map mean."""
        return self._engines[False].model.dataset.labels

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that an image has to have, in their order."""
        return self._engines[False].model.dataset.channel_names

    def predict(
        self,
        image: Image | ArrayLike,
        spacing: Sequence[float] | None = None,
        *,
        probabilities: bool = False,
        previous: Labels | None = None,
    ) -> Prediction:
        """Segment one image; the result is that of `segplug predict` on a file of this image.

        Args:
            image: raw intensities, as `segplug.arrays.image` takes them; preprocessing is done here.
            spacing: of an array; an `Image` has its own.
            probabilities: return those of all classes too, float32 (classes, z, y, x), or (regions, z, y, x). They are
                mapped from a temporary file, which vanishes with them.
            previous: for a cascade, what the previous stage predicted; None to have its model, beside this one, do so.

        Raises:
            UsageError: an array without spacing, or of another number of axes.
            DataError: the image has other channels than the model wants, or values that are not finite.
            CheckpointError: the weights do not fit the plan.
        """
        if not isinstance(image, Image):
            if spacing is None:
                raise UsageError("an array without spacing; expected predict(array, spacing), or an Image")
            image = make_image(image, spacing)
        elif spacing is not None:
            raise UsageError("an Image has its own spacing; expected predict(image), or predict(array, spacing)")
        engine = self._engine(probabilities)
        prediction = engine.predict(engine.prepare(image, previous))
        self._project.kernel.emit("segplug_case_predicted", case="", prediction=prediction, path=None)
        return prediction

    def predict_each(self, images: Iterable[Image], *, probabilities: bool = False) -> Iterator[Prediction]:
        """Segment images one after the other, as the result is iterated over."""
        return (self.predict(image, probabilities=probabilities) for image in images)

    def _engine(self, probabilities: bool) -> Engine:
        if probabilities not in self._engines:
            plain = self._engines[False]
            further = Engine(
                self._project,
                plain.model,
                settings=replace(plain.settings, save_probabilities=True),
                predictor=self._predictor,
                alone=True,
            )
            further.previous = plain.previous
            self._engines[probabilities] = further
        return self._engines[probabilities]
