"""What a data set's trained models are: read from a folder of results or from an archive, without loading weights."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from segplug.errors import DataError, SegplugError
from segplug.model import DatasetDescription, Plan
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.files import parse_json
from segplug.runtime.model_names import ModelName, crossval_name, parse_model_name
from segplug.runtime.plan_codec import decode_plan
from segplug.runtime.splits import ALL

Read = Callable[[str], bytes]

FOLD = re.compile(r"\d{1,6}|all", re.ASCII)
"""What follows `fold_` in the name of a fold's folder."""


@dataclass(frozen=True)
class ModelDescription:
    """One model folder.

    Args:
        folds: with their checkpoints: fold -> `final`, `best`, ...
        dice: fold -> mean foreground Dice of its validation; `crossval`: the same of all folds together, per class
            name, with `mean`. Empty where no summary tells.
        network: class, patch, batch and spacing, for people.
        providers: what its components came from, as `segplug.kernel.provenance` records it.
    """

    name: ModelName
    folds: Mapping[str, tuple[str, ...]]
    network: Mapping[str, Any]
    dice: Mapping[str, float] = field(default_factory=dict)
    crossval: Mapping[str, float] = field(default_factory=dict)
    providers: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class ModelsDescription:
    """All models of a data set that lie together.

    Args:
        choice: the chosen models, with `mean_dice` and `postprocessed_dice`, if one was chosen.
    """

    dataset: DatasetDescription
    models: tuple[ModelDescription, ...]
    choice: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "dataset": self.dataset.name,
            "channels": list(self.dataset.channel_names),
            "labels": {n: list(v) if isinstance(v, tuple) else v for n, v in self.dataset.labels.values.items()},
            "training_cases": self.dataset.num_training,
            "models": [
                {
                    "name": str(m.name),
                    "folds": {fold: list(names) for fold, names in m.folds.items()},
                    "network": dict(m.network),
                    "dice": dict(m.dice),
                    "crossval": dict(m.crossval),
                    "providers": [dict(p) for p in m.providers],
                }
                for m in self.models
            ],
            "choice": dict(self.choice),
        }


def describe_results(folder: Path, model: str | None = None) -> ModelsDescription:
    """Describe a data set's folder of results. What is damaged there is left out with a warning: the rest works alone.

    Args:
        model: name of the only one to describe; None for all of them and the choice.

    Raises:
        DataError: there are no models in it, or all are damaged.
    """
    root = folder.resolve().parent
    known = ("*__*__*/*", "*__*__*/fold_*/*.pth", "*__*__*/fold_*/validation/summary.json", "*__*__*/crossval_*/*.json")
    files = [f for pattern in (*known, "*.json") for f in folder.resolve().glob(pattern) if f.is_file()]
    names = [f.relative_to(root).as_posix() for f in files if model in (None, f.relative_to(folder.resolve()).parts[0])]
    return describe_files(names, lambda name: (root / name).read_bytes(), str(folder), tolerant=True)


def describe_files(names: Sequence[str], read: Read, source: str, *, tolerant: bool = False) -> ModelsDescription:
    """Describe models by their files, as they lie in a folder of results or an archive.

    Args:
        names: `Dataset004_X/nnUNetTrainer__nnUNetPlans__2d/fold_0/checkpoint_final.pth` and the like.
        read: content of one of them.
        source: for messages.
        tolerant: leave out what is damaged, with a warning, as long as there is a model that is not.

    Raises:
        DataError: there is no model among them, they are of several data sets, or a file is damaged.
    """
    paths = [PurePosixPath(name) for name in names]
    folders = sorted({p.parents[len(p.parts) - 3] for p in paths if len(p.parts) > 2 and p.parts[1].count("__") == 2})
    datasets = sorted({folder.parts[0] for folder in folders})
    if len(datasets) != 1:
        raise DataError(
            f"{source}: models of {', '.join(datasets) or 'no data set'}; expected those of one, as "
            "Dataset004_NAME/Trainer__Plans__Configuration/plans.json"
        )
    there = {str(path) for path in paths}

    def load(path: PurePosixPath) -> Any:
        if str(path) not in there:
            raise DataError(f"{source}: no {path}")
        try:
            return parse_json(read(str(path)))
        except ValueError as error:
            raise DataError(f"{source}: {path}: not a JSON file: {error}") from None

    def describe(folder: PurePosixPath) -> tuple[DatasetDescription, ModelDescription]:
        plan = decode_plan(load(folder / "plans.json"), Path(folder, "plans.json"))
        raw = load(folder / "dataset.json")
        if not isinstance(raw, Mapping):
            raise DataError(f"{source}: {folder / 'dataset.json'}: expected an object")
        dataset = parse_description(raw, datasets[0], Path(folder, "dataset.json"))
        return dataset, _describe(folder, plan, dataset, paths, load)

    found: list[tuple[DatasetDescription, ModelDescription]] = []
    damaged: list[SegplugError] = []
    for folder in folders:
        try:
            found.append(describe(folder))
        except SegplugError as error:
            damaged.append(error)
            if not tolerant or len(damaged) == len(folders):
                raise
    file = PurePosixPath(datasets[0], "inference_information.json")
    choice: dict[str, Any] = {}
    try:
        choice = _choice(load(file)) if str(file) in there else {}
    except DataError as error:
        if not tolerant:
            raise
        damaged.append(error)
    for problem in damaged:
        warnings.warn(f"left out of the description: {problem}", stacklevel=3)
    return ModelsDescription(found[-1][0], tuple(model for _, model in found), choice)


def _describe(
    folder: PurePosixPath,
    plan: Plan,
    dataset: DatasetDescription,
    paths: Sequence[PurePosixPath],
    load: Callable[[PurePosixPath], Any],
) -> ModelDescription:
    name = parse_model_name(folder.name)
    if name.configuration not in plan.configurations:
        raise DataError(f"{folder / 'plans.json'}: no configuration {name.configuration!r}; it does not belong there")
    inside = [path.relative_to(folder) for path in paths if folder in path.parents]
    checkpoints: dict[str, list[str]] = {}
    dice: dict[str, float] = {}
    for path in inside:
        if path.parts[0].startswith("fold_"):
            fold = path.parts[0].removeprefix("fold_")
            if not FOLD.fullmatch(fold):  # what a person put aside
                continue
            if len(path.parts) == 2 and path.suffix == ".pth":
                checkpoints.setdefault(fold, []).append(path.stem.removeprefix("checkpoint_"))
            if path.parts[1:] == ("validation", "summary.json"):
                dice[fold] = _mean_dice(load(folder / path))
    folds = {fold: tuple(sorted(checkpoints[fold])) for fold in sorted(checkpoints, key=fold_order)}
    summary = PurePosixPath(crossval_name([fold for fold in folds if fold != ALL]), "summary.json")
    crossval = _per_class(load(folder / summary), dataset) if summary in inside else {}
    configuration = plan.configurations[name.configuration]
    network = {
        "class": configuration.architecture.name.rpartition(".")[2],
        "patch_size": list(configuration.patch_size),
        "batch_size": configuration.batch_size,
        "spacing": list(configuration.spacing),
        "planner": plan.planner,
    }
    return ModelDescription(
        name, folds, network, {f: dice[f] for f in sorted(dice, key=fold_order)}, crossval, plan.provenance
    )


def fold_order(fold: str) -> tuple[int, str]:
    """To sort folds by: numbers as numbers, `all` last."""
    return (int(fold) if fold.isdecimal() else 1 << 30, fold)


def _mean_dice(summary: Any) -> float:
    try:
        return float(summary["foreground_mean"]["Dice"])
    except (KeyError, TypeError, ValueError):
        return float("nan")


def _per_class(summary: Any, dataset: DatasetDescription) -> dict[str, float]:
    try:
        per_class = {
            dataset.labels.name_of(target): summary["mean"][str(target)]["Dice"] for target in dataset.labels.classes
        }
        return {name: float(value) for name, value in {**per_class, "mean": summary["foreground_mean"]["Dice"]}.items()}
    except (KeyError, TypeError, ValueError):
        return {}


def _choice(information: Any) -> dict[str, Any]:
    try:
        best = information["best_model_or_ensemble"]
        members = [
            ModelName(m["trainer"], m["plans_identifier"], m["configuration"]) for m in best["selected_model_or_models"]
        ]
        return {
            "members": [str(member) for member in members],
            "folds": list(information["folds"]),
            "mean_dice": float(best["result_on_crossval_pre_pp"]),
            "postprocessed_dice": float(best["result_on_crossval_post_pp"]),
        }
    except (KeyError, TypeError, ValueError):
        return {}
