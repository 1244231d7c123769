"""A phantom data set, a small network, a training of a moment: for what can only be checked on a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.kernel import Kernel
from segplug.model import Geometry, Image
from segplug.protocols import PredictionSettings
from segplug.runtime.plan_codec import write_plan
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.predict import predict_images
from segplug.stages.preprocess import preprocess
from segplug.stages.train import train
from segplug.testing.phantoms import Phantom, make_case, write_phantom_dataset

DATASET = "Dataset999_Phantom"
LOOK = Phantom((12, 20, 18))
SHORT = ("trainer.epochs=1", "trainer.iterations_per_epoch=2", "trainer.val_iterations_per_epoch=1")


def train_small(kernel: Kernel, folder: Path, trainer: str = "nnunet", overrides: Sequence[str] = SHORT) -> Path:
    """Train fold 0 of a phantom data set below `folder`; returns the model's folder."""
    workspace = Workspace(*(folder / name for name in ("raw", "preprocessed", "results")))
    write_phantom_dataset(folder / "raw" / DATASET, LOOK, cases=5)
    with Project(workspace, kernel, workers=0) as project:
        fingerprint(project, DATASET)
        planned = plan(project, DATASET)
        only = {"3d_fullres": _narrow(planned.configurations["3d_fullres"])}
        write_plan(workspace.plans_file(DATASET, planned.plans_name), replace(planned, configurations=only))
        preprocess(project, DATASET)
        trained = train(
            project,
            DATASET,
            "3d_fullres",
            0,
            trainer=trainer,
            overrides=overrides,
            device="cpu",
            precision="fp32",
            seed=0,
        )
    return trained.folder.parent


def predict_small(kernel: Kernel, model: Path, predictor: str = "torch") -> tuple[NDArray[Any], Image]:
    """Labels that an inference engine predicts for an image that the model has not seen, and the image."""
    array, _, spacing = make_case(LOOK, number=77)
    image = Image(array, Geometry(spacing))
    nowhere = Workspace(raw=None, preprocessed=None, results=None)
    with Project(nowhere, kernel, workers=0) as project:
        settings = PredictionSettings(device="cpu", precision="fp32", mirroring=False)
        checkpoint = "final" if (model / "fold_0" / "checkpoint_final.pth").exists() else "latest"
        (found,) = predict_images(
            project, [image], model, folds=[0], checkpoint=checkpoint, settings=settings, predictor=predictor
        )
    return np.asarray(found.labels.array), image


def _narrow(configuration: Any) -> Any:
    """The configuration with few features: a training of seconds."""
    options = configuration.architecture.options
    features = [4] * len(options["features_per_stage"])
    architecture = replace(configuration.architecture, options={**options, "features_per_stage": features})
    return replace(configuration, architecture=architecture, batch_size=2)
