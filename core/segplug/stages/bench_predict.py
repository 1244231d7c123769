"""How fast images are predicted, and how much of it is the network."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.errors import UsageError
from segplug.model import Case, DatasetDescription, Plan
from segplug.protocols import PredictionSettings
from segplug.runtime.device import resolve_device
from segplug.runtime.planned import find_configuration, find_plan
from segplug.runtime.process_tree import UsageMeter
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.trained_model import TrainedModel
from segplug.runtime.untrained_model import write_untrained_model
from segplug.stages.bench import SECONDS, BenchResult
from segplug.stages.predict import predict_folder

if TYPE_CHECKING:
    from torch import nn


def bench_prediction(
    project: Project,
    dataset: str | int | Path,
    configuration: str,
    *,
    repetitions: int = 3,
    cases: int = 5,
    folds: int = 1,
    model: Path | None = None,
    plans_name: str | None = None,
    settings: PredictionSettings | None = None,
) -> BenchResult:
    """Predict training images into a folder that is removed, again and again, and tell how long it took.

    A first repetition of one case, which loads libraries and picks kernels, is not counted.

    Args:
        dataset: id, name or path of a raw data set that was planned.
        repetitions: counted ones.
        cases: the first so many of the data set's training images.
        folds: networks whose predictions are averaged.
        model: folder of a model of this configuration (and of `plans_name`, if given); its first `folds` folds are
            used. None for random weights: speed does not depend on them, so that nothing needs to be trained.
        settings: None for the defaults. Random weights are mirrored along every axis, as nnU-Net's training allows.

    Returns:
        Per repetition `seconds`, `cpu_seconds` and `peak_memory_mb` of the process tree, `cases_per_second`,
        `voxels_per_second` (of the images as they are), `network_seconds` and `share_of_network`.

    Raises:
        UsageError, DataError, PluginError, CheckpointError: see `segplug.stages.predict.predict_folder`; also if the
            configuration belongs to a cascade's later stage, which needs trained models, or the model is of another
            configuration or other plans.
    """
    settings = settings or PredictionSettings()
    raw = load_dataset(project.workspace.raw_folder(dataset))
    chosen = list(raw.cases.values())[:cases]
    with tempfile.TemporaryDirectory(prefix="segplug-bench-") as name:
        folder = Path(name)
        if model is None:
            plan = find_plan(project.workspace, raw.name, plans_name)
            model = _random_model(project, folder / "models", plan, configuration, raw.description, folds)
        loaded = TrainedModel(project.kernel.registry, model, None)
        if model.parent != folder / "models":
            _require_named(loaded, configuration, plans_name)
            loaded = TrainedModel(project.kernel.registry, model, list(loaded.folds)[:folds])
        clock = NetworkClock(loaded.networks(resolve_device(settings.device)))
        ending = raw.description.file_ending
        images = [_link(chosen[:1], folder / "one_image", ending), _link(chosen, folder / "images", ending)]
        voxels = _voxels(project, loaded, chosen)
        done: list[dict[str, float]] = []
        for number in range(repetitions + 1):
            clock.seconds = 0.0
            with UsageMeter() as meter:
                predict_folder(project, images[min(number, 1)], folder / "predictions", loaded, settings=settings)
            shutil.rmtree(folder / "predictions")
            done.append(_figures(meter, clock, len(chosen), voxels))
        described = {
            "dataset": raw.name,
            "cases": len(chosen),
            "configuration": loaded.configuration.name,
            "plans": loaded.plan.plans_name,
            "weights": "random" if model.parent == folder / "models" else str(model),
            "folds": len(loaded.folds),
            "step_size": settings.step_size,
            "mirror_axes": list(loaded.mirror_axes) if settings.mirroring else [],
            "patch_size": list(loaded.configuration.patch_size),
            "workers": project.workers,
            "device": str(resolve_device(settings.device)),
            "precision": settings.precision,
            "max_memory_gb": settings.max_memory_gb,
        }
    return BenchResult("predict", described, done[1:])


def _require_named(model: TrainedModel, configuration: str, plans_name: str | None) -> None:
    """The result would tell of other things than were asked for."""
    for what, found, named in (
        ("configuration", model.configuration.name, configuration),
        ("plans", model.plan.plans_name, plans_name),
    ):
        if named not in (None, found):
            raise UsageError(
                f"{model.folder}: a model of {what} {found}; expected {named}, which was named. Name {found}, or give "
                f"the folder of a model of {named}"
            )


@dataclass
class NetworkClock:
    """How long networks were at work, on whatever device."""

    seconds: float

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.seconds, self._start = 0.0, 0.0
        for network in networks:
            network.register_forward_pre_hook(self._begin)
            network.register_forward_hook(self._end)

    def _begin(self, network: nn.Module, _: Any) -> None:
        _wait(network)
        self._start = time.perf_counter()

    def _end(self, network: nn.Module, _: Any, __: Any) -> None:
        _wait(network)
        self.seconds += time.perf_counter() - self._start


def _wait(network: nn.Module) -> None:
    """Until a GPU has done what it was told."""
    import torch

    device = next(network.parameters()).device
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _figures(meter: UsageMeter, clock: NetworkClock, cases: int, voxels: int) -> dict[str, float]:
    usage = meter.usage
    return {
        SECONDS: usage.seconds,
        "cpu_seconds": usage.cpu_seconds,
        "peak_memory_mb": usage.peak_memory / 1e6,
        "cases_per_second": cases / usage.seconds,
        "voxels_per_second": voxels / usage.seconds,
        "network_seconds": clock.seconds,
        "share_of_network": clock.seconds / usage.seconds,
    }


def _random_model(
    project: Project, folder: Path, plan: Plan, configuration: str, dataset: DatasetDescription, folds: int
) -> Path:
    """A model folder with random weights, which differ by fold."""
    chosen = find_configuration(plan, configuration)
    if chosen.previous_stage is not None:
        raise UsageError(
            f"configuration {configuration} takes the predictions of {chosen.previous_stage}: name a trained model"
        )
    mirror_axes = tuple(range(len(chosen.patch_size)))
    model = folder / f"nnUNetTrainer__{plan.plans_name}__{configuration}"
    return write_untrained_model(
        model, plan, configuration, dataset, project.kernel.registry, folds=range(folds), mirror_axes=mirror_axes
    )


def _link(cases: Sequence[Case], folder: Path, ending: str) -> Path:
    """A folder of images, as prediction takes it."""
    folder.mkdir()
    for case in cases:
        for channel, image in enumerate(case.images):
            (folder / f"{case.name}_{channel:04d}{ending}").symlink_to(image.resolve())
        spacing = case.images[0].resolve().with_name(f"{case.name}.json")  # TIFF stacks have it beside them
        if spacing.is_file():
            (folder / spacing.name).symlink_to(spacing)
    return folder


def _voxels(project: Project, model: TrainedModel, cases: Sequence[Case]) -> int:
    """Of all images, one channel each."""
    from segplug.runtime.case_reading import read_image

    reader = project.kernel.registry.build("readers", model.plan.reader)
    channels = model.dataset.num_channels
    return sum(int(read_image(reader, case, channels).array[0].size) for case in cases)
