"""segplug: nnU-Net's self-configuring segmentation as a plugin framework.

Importing the package is cheap: names are loaded on first use, and importing it pulls in neither NumPy nor torch. What
works on data sets on disk takes a `Project` first (`open_project`); what works on arrays is in `segplug.arrays`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segplug import arrays as arrays
    from segplug.arrays.prediction import LoadedModel as LoadedModel
    from segplug.arrays.prediction import load_model as load_model
    from segplug.cli.shell import open_project as project_of_command
    from segplug.errors import SegplugError as SegplugError
    from segplug.kernel import Component as Component
    from segplug.kernel import hookimpl as hookimpl
    from segplug.model import ComponentRef as ComponentRef
    from segplug.protocols import PredictionSettings as PredictionSettings
    from segplug.runtime.project import Project as Project
    from segplug.runtime.project import open_project as open_project
    from segplug.stages.convert import convert as convert
    from segplug.stages.ensemble import ensemble_folders as ensemble_folders
    from segplug.stages.evaluate import evaluate as evaluate
    from segplug.stages.export_model import export_model as export_model
    from segplug.stages.fingerprint import fingerprint as fingerprint
    from segplug.stages.import_model import import_model as import_model
    from segplug.stages.move_plans import move_plans as move_plans
    from segplug.stages.overlays import overlays as overlays
    from segplug.stages.plan import plan as plan
    from segplug.stages.postprocess import apply_postprocessing as apply_postprocessing
    from segplug.stages.postprocess import fit_postprocessing as fit_postprocessing
    from segplug.stages.predict import predict_folder as predict_folder
    from segplug.stages.predict import predict_images as predict_images
    from segplug.stages.predict_choice import predict_choice as predict_choice
    from segplug.stages.prepare import prepare as prepare
    from segplug.stages.preprocess import preprocess as preprocess
    from segplug.stages.report import report as report
    from segplug.stages.run import Planning as Planning
    from segplug.stages.run import Training as Training
    from segplug.stages.run import run as run
    from segplug.stages.select import select as select
    from segplug.stages.split_dataset import split_dataset as split_dataset
    from segplug.stages.split_folds import split_folds as split_folds
    from segplug.stages.train import train as train
    from segplug.stages.verify import verify as verify

__version__ = "0.1.0"

_HOME = {
    "Component": "segplug.kernel",
    "ComponentRef": "segplug.model",
    "LoadedModel": "segplug.arrays.prediction",
    "Planning": "segplug.stages.run",
    "PredictionSettings": "segplug.protocols",
    "Project": "segplug.runtime.project",
    "SegplugError": "segplug.errors",
    "Training": "segplug.stages.run",
    "apply_postprocessing": "segplug.stages.postprocess",
    "convert": "segplug.stages.convert",
    "ensemble_folders": "segplug.stages.ensemble",
    "evaluate": "segplug.stages.evaluate",
    "export_model": "segplug.stages.export_model",
    "fingerprint": "segplug.stages.fingerprint",
    "fit_postprocessing": "segplug.stages.postprocess",
    "hookimpl": "segplug.kernel",
    "import_model": "segplug.stages.import_model",
    "load_model": "segplug.arrays.prediction",
    "move_plans": "segplug.stages.move_plans",
    "open_project": "segplug.runtime.project",
    "overlays": "segplug.stages.overlays",
    "plan": "segplug.stages.plan",
    "predict_choice": "segplug.stages.predict_choice",
    "predict_folder": "segplug.stages.predict",
    "predict_images": "segplug.stages.predict",
    "prepare": "segplug.stages.prepare",
    "preprocess": "segplug.stages.preprocess",
    "project_of_command": "segplug.cli.shell",
    "report": "segplug.stages.report",
    "run": "segplug.stages.run",
    "select": "segplug.stages.select",
    "split_dataset": "segplug.stages.split_dataset",
    "split_folds": "segplug.stages.split_folds",
    "train": "segplug.stages.train",
    "verify": "segplug.stages.verify",
}

_THERE = {"project_of_command": "open_project"}
"""Names at home that differ from those here."""

__all__ = [
    "Component",
    "ComponentRef",
    "LoadedModel",
    "Planning",
    "PredictionSettings",
    "Project",
    "SegplugError",
    "Training",
    "__version__",
    "apply_postprocessing",
    "arrays",
    "convert",
    "ensemble_folders",
    "evaluate",
    "export_model",
    "fingerprint",
    "fit_postprocessing",
    "hookimpl",
    "import_model",
    "load_model",
    "move_plans",
    "open_project",
    "overlays",
    "plan",
    "predict_choice",
    "predict_folder",
    "predict_images",
    "prepare",
    "preprocess",
    "project_of_command",
    "report",
    "run",
    "select",
    "split_dataset",
    "split_folds",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "arrays":
        return import_module("segplug.arrays")
    if name not in _HOME:
        raise AttributeError(f"module 'segplug' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), _THERE.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
