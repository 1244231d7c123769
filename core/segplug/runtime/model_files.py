"""The files beside the folds of a model, as nnU-Net has them: plans.json, dataset.json, dataset_fingerprint.json."""

from __future__ import annotations

import shutil
import warnings
from contextlib import suppress

from segplug.errors import DataError
from segplug.runtime.files import replacing, write_json
from segplug.runtime.fold_work import FoldWork
from segplug.runtime.plan_codec import encode_plan, read_plan
from segplug.runtime.workspace import Workspace

PLANS = "plans.json"


def write_model_files(workspace: Workspace, work: FoldWork) -> None:
    """Write those of a training that begins; a warning tells where other folds are another network's."""
    folder = work.trained.model_folder
    _warn_of_unlike_folds(work)
    write_json(folder / PLANS, encode_plan(work.plan))
    write_json(folder / "dataset.json", work.dataset.raw)
    fingerprint = workspace.fingerprint_file(work.dataset.name)
    if fingerprint.is_file():
        with replacing(folder / fingerprint.name) as partial:
            shutil.copyfile(fingerprint, partial)


def _warn_of_unlike_folds(work: FoldWork) -> None:
    """All folds of a model predict as its plans.json says, which is about to be this training's."""
    folder, now = work.trained.model_folder, work.configuration
    others = sorted({file.parent.name for file in folder.glob("fold_*/checkpoint_*.pth")} - {work.trained.folder.name})
    with suppress(DataError):  # there is none, or it is damaged
        then = read_plan(folder / PLANS).configurations.get(now.name) if others else None
        if then is not None and (then.patch_size, then.architecture) != (now.patch_size, now.architecture):
            warnings.warn(
                f"{folder}: {', '.join(others)} were trained with patch size {then.patch_size} and network "
                f"{then.architecture.name}, not {now.patch_size} and {now.architecture.name}, or with other options of "
                "it. They predict as this training's plans.json says: train them anew too, or train under another "
                "name of plans",
                stacklevel=3,
            )
