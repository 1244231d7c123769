"""The cases of a folder, predicted one after the other: read ahead, written behind, each failing by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.errors import DataError
from segplug.model import Case, Image, Labels, Prediction
from segplug.runtime.case_reading import channel_file, read_image, read_labels, require_channels
from segplug.runtime.files import file_hash
from segplug.runtime.geometry import differences
from segplug.runtime.kept_memory import keeping_freed_memory
from segplug.runtime.overlap import ahead
from segplug.runtime.prediction_engine import Engine
from segplug.runtime.prediction_output import PredictionOutput, input_hashes
from segplug.runtime.preprocessing import NotFiniteError
from segplug.runtime.project import Project

if TYPE_CHECKING:
    from segplug.runtime.prediction_pipeline import PreparedImage

STAGE = "predict"


@dataclass(frozen=True)
class _Ready:
    """A case that is ready for the network; the image is None if its prediction is there already."""

    made_from: Mapping[str, Any]
    image: PreparedImage | None


class CaseRun:
    """The cases of one call of `predict_folder`. `failures` gets what is wrong with a case.

    Args:
        previous_stage: folder with the label maps that the previous stage of a cascade predicted; None where the engine
            makes them.
        keep_previous: folder to write those to that the engine makes, in one of its own for each configuration.
    """

    def __init__(
        self,
        project: Project,
        engine: Engine,
        output: PredictionOutput,
        continue_: bool,
        previous_stage: Path | None = None,
        keep_previous: Path | None = None,
    ) -> None:
        self.failures: dict[str, str] = {}
        self.predicted: list[str] = []
        self.kept: list[str] = []
        self._project = project
        self._engine = engine
        self._output = output
        self._continue = continue_
        self._reader = project.kernel.registry.build("readers", engine.model.plan.reader)
        self._previous_stage = previous_stage
        self._keep_previous = keep_previous
        self._total = 0

    def all(self, cases: Sequence[Case], overlapped: bool) -> None:
        """Predict and write every case that can be."""
        self._total = len(cases)
        pending: list[tuple[Case, Prediction, Future[Path]]] = []
        # with a limit of memory the engine keeps it for the time of an image only
        kept = nullcontext() if self._engine.settings.max_memory_gb is not None else keeping_freed_memory()
        with kept, ThreadPoolExecutor(1, thread_name_prefix="write") as writing:
            for case, reading in ahead(self._read, cases, int(overlapped)):
                with self._naming(case):
                    ready = reading.result()
                    if ready.image is None:
                        self._step(case, self.kept)
                    else:
                        prediction = self._engine.predict(ready.image, partial(self._keep, case, ready.made_from))
                        made_from = ready.made_from
                        del ready, reading  # the image makes room for what is written
                        written = writing.submit(self._output.write, case.name, prediction, made_from)
                        pending.append((case, prediction, written))
                        del prediction, written
                while pending and (len(pending) > 1 or not overlapped):
                    self._finish(*pending.pop(0))
            for entry in pending:
                self._finish(*entry)

    def _read(self, case: Case) -> _Ready:
        made_from = {**self._engine.recipe, "images": input_hashes(case)}
        file = None
        if self._previous_stage is not None:
            file = self._previous_stage / f"{case.name}{self._engine.model.dataset.file_ending}"
            if not file.exists():
                raise DataError(self._missing_previous(file))
            made_from["previous_stage"] = file_hash(file)
        if self._continue and self._output.is_whole(case.name, made_from):
            return _Ready(made_from, None)
        if (large := self._prepare_large(case)) is not None:
            return _Ready(made_from, large)
        image = read_image(self._reader, case, self._engine.model.dataset.num_channels)
        previous = None if file is None else self._read_previous(file, image)
        limited = self._engine.settings.max_memory_gb is not None
        return _Ready(made_from, self._engine.prepare(image, previous, consumed=limited))

    def _prepare_large(self, case: Case) -> PreparedImage | None:
        """The case on disk, if there is a limit of memory that it is too large for, and a reader of regions."""
        model = self._engine.model
        if self._engine.settings.max_memory_gb is None or model.configuration.previous_stage is not None:
            return None
        from segplug.runtime.large_images import open_image

        opened = open_image(self._project.kernel.registry, model.plan.reader, case)
        if opened is None:
            return None
        require_channels(case, opened.shape[0], model.dataset.num_channels)
        return self._engine.pipeline.prepare_large(opened)

    def _missing_previous(self, file: Path) -> str:
        stage = str(self._engine.model.configuration.previous_stage)
        below = file.parent / stage
        remedy = f"Give {below}" if below.is_dir() else "Give the folder that has it"
        return (
            f"{file}: no such file; expected the label map that {stage} predicted for this case. {remedy}, or leave "
            "--previous-stage out to have it predicted"
        )

    def _read_previous(self, file: Path, image: Image) -> Labels:
        labels = read_labels(self._reader, file)
        for difference in differences(labels.geometry, labels.shape, image.geometry, image.shape):
            if not difference.aligned:
                raise DataError(
                    f"{file}: {difference.what} {difference.found}; expected {difference.expected} (the image's). Give "
                    "the folder with the previous stage's predictions of these images"
                )
        return labels

    def _keep(self, case: Case, made_from: Mapping[str, Any], engine: Engine, prediction: Prediction) -> None:
        """Write what a stage before the last predicted, if it was asked for."""
        if self._keep_previous is not None:
            folder = self._keep_previous / engine.model.configuration.name
            origin = {**engine.recipe, "images": made_from["images"]}
            self._output.in_folder(folder).write(case.name, prediction, origin)

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
        except NotFiniteError as error:
            self._fail(case, f"{channel_file(case, error.channel)}: {error}")
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
