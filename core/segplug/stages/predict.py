"""Segment images with a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import segplug
from segplug.errors import DataError, UsageError
from segplug.kernel import Provided, provenance
from segplug.model import Case, Image, Prediction
from segplug.protocols import PredictionSettings, Predictor
from segplug.runtime.case_reading import read_image
from segplug.runtime.files import write_json
from segplug.runtime.folder_lock import working_in
from segplug.runtime.overlap import ahead
from segplug.runtime.prediction_output import PredictionOutput, find_writer, input_hashes
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import scan_cases

if TYPE_CHECKING:
    from segplug.runtime.prediction_pipeline import PredictionPipeline
    from segplug.runtime.trained_model import TrainedModel

STAGE = "predict"


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


class Engine:
    """A model with its pipeline and the inference engine that runs it.

    Args:
        model: a model folder, or a model that is loaded; `folds` and `checkpoint` are for a folder.
        settings: None for the defaults.
        predictor: name of the inference engine.
        scratch: folder on whose disk probabilities are kept meanwhile.

    Raises:
        UsageError, CheckpointError, PluginError, DataError: see `predict_folder`.
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


def predict_images(
    project: Project,
    images: Iterable[Image],
    model: Path | TrainedModel,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "final",
    settings: PredictionSettings | None = None,
    predictor: str = "torch",
) -> Iterator[Prediction]:
    """Predict images in memory, one after the other as the result is iterated over.

    Args:
        images: raw images, as a reader returns them: float32 (channels, z, y, x) with their spacing.
        model, folds, checkpoint, settings, predictor: see `predict_folder`. With `save_probabilities` the probabilities
            are arrays mapped from files that vanish with them.

    Raises:
        UsageError, CheckpointError, PluginError: see `predict_folder`; at once.
        DataError: an image cannot be predicted; when its turn comes.
    """
    engine = Engine(project, model, folds=folds, checkpoint=checkpoint, settings=settings, predictor=predictor)
    return _predict_each(project, images, engine.predictor)


def _predict_each(project: Project, images: Iterable[Image], predictor: Predictor) -> Iterator[Prediction]:
    for number, image in enumerate(images):
        prediction = predictor.predict(image)
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

    Raises:
        UsageError: the folder of images, the model folder, a fold, a checkpoint or the device is not there.
        CheckpointError: a checkpoint is damaged, or does not fit the plan.
        PluginError: a component is missing, or other plugins provide it than at training.
        DataError: cases lack files, are damaged, need too much memory, or made the network's output infinite. All of
            them are told, after the others have been predicted and written.
    """
    if not source.is_dir():
        raise UsageError(f"{source}: no such folder; expected one with images named CASE_0000.ext")
    if source.resolve() == target.resolve():
        raise UsageError(f"{target}: images and predictions cannot share a folder")
    engine = Engine(
        project, model, folds=folds, checkpoint=checkpoint, settings=settings, predictor=predictor, scratch=target
    )
    plan, dataset = engine.model.plan, engine.model.dataset
    configuration = engine.model.configuration
    if configuration.previous_stage is not None:
        raise UsageError(
            f"configuration {configuration.name} needs the predictions of {configuration.previous_stage} as input; "
            "from a folder only configurations without a previous stage can be predicted"
        )
    cases, findings = scan_cases(source, dataset.file_ending, dataset.num_channels)
    failures = {f.case or str(f.file): str(f).removeprefix("error: ") for f in findings if f.is_error}
    if not cases and not failures:
        raise DataError(f"{source}: no images; expected files named CASE_0000{dataset.file_ending}")
    writer = find_writer(project.kernel, plan.reader.name, dataset.file_ending)
    run = _Run(project, engine, PredictionOutput(target, writer, dataset.file_ending), continue_)
    with working_in(target), project.stage(STAGE, f"{source} -> {target}", len(cases)):
        _write_descriptions(source, target, engine, continue_)
        run.all(list(cases.values()), overlapped=project.workers > 0 and engine.settings.max_memory_gb is None)
        failures |= run.failures
        if failures:
            listed = "\n".join(f"  {text}" for text in failures.values())
            total = len(cases.keys() | failures.keys())
            raise DataError(f"{len(failures)} of {total} cases not predicted; all others are in {target}:\n{listed}")
    return FolderPrediction(target, tuple(run.predicted), tuple(run.kept))


def _write_descriptions(source: Path, target: Path, engine: Engine, continue_: bool) -> None:
    """What nnU-Net leaves beside predictions, and needs there for evaluation and postprocessing."""
    model, settings = engine.model, engine.settings
    write_json(target / "dataset.json", model.dataset.raw)
    write_json(target / "plans.json", model.raw_plan)
    arguments = {
        "list_of_lists_or_source_folder": str(source),
        "output_folder_or_list_of_truncated_output_files": str(target),
        "save_probabilities": settings.save_probabilities,
        "overwrite": not continue_,
        "folder_with_segs_from_prev_stage": None,
        "num_parts": 1,
        "part_id": 0,
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


@dataclass(frozen=True)
class _Ready:
    """A case that is ready for the network; the image is None if its prediction is there already."""

    made_from: Mapping[str, Any]
    image: Image | None


class _Run:
    """The cases of one call of `predict_folder`. `failures` gets what is wrong with a case."""

    def __init__(self, project: Project, engine: Engine, output: PredictionOutput, continue_: bool) -> None:
        self.failures: dict[str, str] = {}
        self.predicted: list[str] = []
        self.kept: list[str] = []
        self._project = project
        self._engine = engine
        self._output = output
        self._continue = continue_
        self._reader = project.kernel.registry.build("readers", engine.model.plan.reader)
        self._total = 0

    def all(self, cases: Sequence[Case], overlapped: bool) -> None:
        """Predict and write every case that can be."""
        self._total = len(cases)
        pending: list[tuple[Case, Prediction, Future[Path]]] = []
        with ThreadPoolExecutor(1, thread_name_prefix="write") as writing:
            for case, reading in ahead(self._read, cases, int(overlapped)):
                with self._naming(case):
                    ready = reading.result()
                    if ready.image is None:
                        self._step(case, self.kept)
                    else:
                        prediction = self._engine.predictor.predict(ready.image)
                        written = writing.submit(self._output.write, case.name, prediction, ready.made_from)
                        pending.append((case, prediction, written))
                while pending and (len(pending) > 1 or not overlapped):
                    self._finish(*pending.pop(0))
            for entry in pending:
                self._finish(*entry)

    def _read(self, case: Case) -> _Ready:
        made_from = {**self._engine.recipe, "images": input_hashes(case)}
        if self._continue and self._output.is_whole(case.name, made_from):
            return _Ready(made_from, None)
        image = read_image(self._reader, case, self._engine.model.dataset.num_channels)
        return _Ready(made_from, self._engine.pipeline.prepare(image))

    def _finish(self, case: Case, prediction: Prediction, written: Future[Path]) -> None:
        """Wait until a case is on disk, and tell of it."""
        with self._naming(case):
            path = written.result()
            kernel = self._project.kernel
            kernel.emit("segplug_case_predicted", case=case.name, prediction=prediction, path=path)
            self._step(case, self.predicted)

    def _step(self, case: Case, outcome: list[str]) -> None:
        outcome.append(case.name)
        done = len(self.predicted) + len(self.kept) + len(self.failures)
        self._project.progress(STAGE, case.name, done, self._total)

    @contextmanager
    def _naming(self, case: Case) -> Iterator[None]:
        """Note what is wrong with a case, by its name, and go on with the others."""
        try:
            yield
        except DataError as error:
            self._fail(case, str(error).removeprefix(f"case {case.name}: "))
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            self._fail(case, "memory ran out. Free some, or use --max-memory, --workers 0 or another --device")

    def _fail(self, case: Case, why: str) -> None:
        self.failures[case.name] = f"{case.name}: {why}"
        # what an earlier run left must not be taken for a result of this one
        self._output.discard(case.name)
        self._step(case, [])


def _is_out_of_memory(error: BaseException) -> bool:
    """NumPy's error, or torch's of a GPU or of the CPU, which has no type of its own."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )
