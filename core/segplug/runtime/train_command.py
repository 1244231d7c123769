"""The command that trains a fold that is missing: with the settings of the folds that are there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segplug.errors import SegplugError
from segplug.kernel import Kernel
from segplug.model import ComponentRef
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.trainer_choice import NNUNET_TRAINER, PREFIX, choose_trainer

CHECKPOINTS = ("final", "latest", "best")


def train_command(kernel: Kernel, model_folder: Path, fold: int | str) -> str:
    """The command that trains and validates a fold of a model to its end.

    A fold that was begun goes on as it began. Of one that was not, the settings, seed and pretrained weights are those
    of the first fold of this model with a checkpoint of segplug, so that all folds are alike. Device and precision are
    left to whoever calls it.

    Args:
        model_folder: `<Trainer>__<Plans>__<Configuration>`; it need not exist.
    """
    trainer, plans, configuration = (*model_folder.name.split("__"), "", "", "")[:3]  # of any folder, for messages
    words = ["segplug", "train", model_folder.parent.name, configuration, str(fold), "--plans-name", plans]
    found = None if _checkpoint(model_folder / f"fold_{fold}") else _first_checkpoint(model_folder)
    like: list[str] | None = None
    if found is not None:
        try:
            like = _like(kernel, model_folder, configuration, read_checkpoint(found, mapped=True).extension)
        except SegplugError:  # damaged, or of a plugin that is not there: what is missing then is told on training
            like = None
    if like is None:
        like = [] if trainer == NNUNET_TRAINER else ["--trainer", trainer]
    return shlex.join([*words, *like, "--continue"])


def _checkpoint(fold: Path) -> Path | None:
    return next((f for f in (fold / f"checkpoint_{name}.pth" for name in CHECKPOINTS) if f.is_file()), None)


def _first_checkpoint(model_folder: Path) -> Path | None:
    folds = sorted(model_folder.glob("fold_*"))
    return next((found for found in map(_checkpoint, folds) if found is not None), None)


def _like(kernel: Kernel, model_folder: Path, configuration: str, extension: Mapping[str, Any]) -> list[str] | None:
    """Options that repeat a training; None if it was not segplug's."""
    recorded = extension.get("trainer")
    if not isinstance(recorded, Mapping):
        return None
    plan = read_plan(model_folder / "plans.json")
    usual = choose_trainer(kernel, plan, configuration)
    words: list[str] = []
    if usual.name != recorded["name"]:
        usual = choose_trainer(kernel, plan, configuration, name=recorded["name"])
        words += ["--trainer", recorded["name"]]
    for assignment in _changes(usual.settings, recorded["settings"]):
        words += ["--set", f"{PREFIX}.{assignment}"]
    if extension.get("seed"):
        words += ["--seed", str(extension["seed"])]
    began = extension.get("pretrained")
    if isinstance(began, Mapping):
        words += ["--pretrained", str(began["file"])]
    return words


def _changes(usual: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """Assignments that make the usual settings these; see `segplug.runtime.overrides.apply_overrides`."""
    for field, value in settings.items():
        before = usual.get(field)
        if value == before or field not in usual:
            continue
        if isinstance(value, Mapping) and set(value) == {"name", "options"}:
            named = ComponentRef(value["name"], value["options"])
            same = isinstance(before, Mapping) and before.get("name") == named.name
            if not same:
                yield f"{field}={named.name}"
            options = before["options"] if same and isinstance(before, Mapping) else {}
            yield from (f"{field}.{k}={_text(v)}" for k, v in named.options.items() if options.get(k) != v)
        elif isinstance(value, Mapping):
            yield from (f"{field}.{key}={_text(part)}" for key, part in value.items())
        else:
            yield f"{field}={_text(value)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
