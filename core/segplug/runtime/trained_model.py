"""A trained model, from its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segplug.errors import CheckpointError, DataError, UsageError
from segplug.kernel import Registry
from segplug.kernel.provenance import require_same
from segplug.model import Configuration, DatasetDescription, Plan
from segplug.runtime.adapted_network import as_trained
from segplug.runtime.checkpoint import Checkpoint, load_weights, read_checkpoint
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.files import file_hash, read_json, value_hash
from segplug.runtime.network import build_network, count_input_channels
from segplug.runtime.plan_codec import decode_plan
from segplug.runtime.plan_components import components_of

CHECKPOINTS = ("final", "best", "latest")

_USED_AT_PREDICTION = ("readers", "writers", "normalizers", "resamplers", "architectures")
"""Kinds whose provider has to be the one of the training; losses and the like are not needed any more."""


class TrainedModel:
    """What `segplug.protocols.Model` describes. Weights are read once and kept.

    Args:
        registry: for the architecture.
        folder: `<Trainer>__<Plans>__<Configuration>`, with plans.json, dataset.json and a folder for each fold.
        folds: None for all that there are.
        checkpoint: `final`, `best` or `latest`.
        allow_provider_change: accept other plugins than those the model was made with.

    Raises:
        UsageError: the folder, a fold or a checkpoint is not there; the message lists what is.
        CheckpointError: a checkpoint is damaged, or the folds belong to different configurations.
        DataError: plans.json or dataset.json is damaged.
        PluginError: the model needs plugins that are not here.
    """

    def __init__(
        self,
        registry: Registry,
        folder: Path,
        folds: Sequence[int | str] | None = None,
        checkpoint: str = "final",
        *,
        allow_provider_change: bool = False,
    ) -> None:
        self._registry = registry
        self.folder = folder
        self.checkpoint = checkpoint
        self.raw_plan: Mapping[str, Any] = _read(folder, "plans.json")
        self.plan: Plan = decode_plan(self.raw_plan, folder / "plans.json")
        raw_dataset = _read(folder, "dataset.json")
        self.dataset: DatasetDescription = parse_description(
            raw_dataset, self.plan.dataset_name, folder / "dataset.json"
        )
        self.folds: tuple[int | str, ...] = _choose_folds(folder, folds, checkpoint)
        self._files = [checkpoint_file(folder, fold, checkpoint) for fold in self.folds]
        self._checkpoints = [read_checkpoint(file, mapped=True) for file in self._files]
        first = self._checkpoints[0]
        self.mirror_axes: tuple[int, ...] = first.mirror_axes
        self.trainer = first.trainer
        planned = _configuration(self.plan, self._checkpoints)
        # plans of segplug's own models have the network that was trained
        self.configuration: Configuration = planned if first.extension else as_trained(registry, planned, self.trainer)
        self._check_provenance(allow_provider_change)
        self._networks: dict[str, list[nn.Module]] = {}

    @property
    def input_channels(self) -> int:
        return count_input_channels(self.configuration, self.dataset.num_channels, self.dataset.labels)

    @property
    def previous_models(self) -> list[str]:
        """In a cascade, the model folders whose predictions the folds were trained on; empty if nothing tells."""
        found = (checkpoint.extension.get("previous_model") for checkpoint in self._checkpoints)
        return sorted({str(name) for name in found if name is not None})

    @cached_property
    def identity(self) -> str:
        """Hash of all that decides what the model predicts: weights, plan and labels."""
        weights = [file_hash(file) for file in self._files]
        return value_hash([weights, self.raw_plan, self.dataset.raw, self.configuration.name])

    def networks(self, device: torch.device) -> list[nn.Module]:
        """One network per fold in evaluation mode, on the device, returning one tensor.

        Raises:
            CheckpointError: the weights do not fit the plan.
            PluginError: the architecture is not installed.
        """
        key = str(device)
        if key not in self._networks:
            self._networks[key] = [self._network(c).to(device) for c in self._checkpoints]
        return self._networks[key]

    def _network(self, checkpoint: Checkpoint) -> nn.Module:
        with _WithoutRandomFilling():
            network = build_network(
                self._registry,
                self.configuration,
                self.input_channels,
                self.dataset.labels.output_channels,
                deep_supervision=False,
            )
        load_weights(network, checkpoint.weights, str(checkpoint.path))
        if hasattr(network, "deep_supervision"):
            setattr(network, "deep_supervision", False)  # noqa: B010  mypy takes a module's attributes for tensors
        return network.eval().requires_grad_(False)

    def _check_provenance(self, allow_change: bool) -> None:
        # what only other configurations of the plan name is not needed
        own = replace(self.plan, configurations={self.configuration.name: self.configuration}, training={})
        others = {(n.kind, n.name) for n in components_of(self.plan)} - {(n.kind, n.name) for n in components_of(own)}
        recorded = {
            (entry.get("kind"), entry.get("name")): entry
            for source in (self.plan.provenance, *(c.extension.get("provenance", ()) for c in self._checkpoints))
            for entry in source
            if entry.get("kind") in _USED_AT_PREDICTION and (entry.get("kind"), entry.get("name")) not in others
        }
        require_same(list(recorded.values()), self._registry, f"model {self.folder}", allow_change)


def checkpoint_file(folder: Path, fold: int | str, checkpoint: str) -> Path:
    """Path of a fold's checkpoint in a model folder."""
    return folder / f"fold_{fold}" / f"checkpoint_{checkpoint}.pth"


def _read(folder: Path, name: str) -> Any:
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: no such model folder; expected <Trainer>__<Plans>__<Configuration> with fold_0, ..."
        )
    if not (folder / name).is_file():
        raise UsageError(
            f"{folder}: no {name}, so it is no model folder; expected plans.json, dataset.json and fold_0, ..."
        )
    content = read_json(folder / name)
    if not isinstance(content, Mapping):
        raise DataError(f"{folder / name}: a {type(content).__name__}; expected an object")
    return content


def _choose_folds(folder: Path, wanted: Sequence[int | str] | None, checkpoint: str) -> tuple[int | str, ...]:
    if checkpoint not in CHECKPOINTS:
        raise UsageError(f"--checkpoint {checkpoint}: expected one of {', '.join(CHECKPOINTS)}")
    there = {f.name.removeprefix("fold_"): f for f in sorted(folder.glob("fold_*")) if f.is_dir()}
    having = [name for name in there if checkpoint_file(folder, name, checkpoint).is_file()]
    listed = ", ".join(_told(folder, name) for name in there) or "none"
    if wanted is None:
        # as in nnU-Net, fold `all` is used only when it is asked for; here also when there is no other
        numbered = sorted(int(name) for name in having if name.isdigit())
        found: tuple[int | str, ...] = tuple(numbered) or tuple(having)
        if not found:
            raise UsageError(f"{folder}: no fold has a checkpoint_{checkpoint}.pth. Folds there: {listed}")
        return found
    if not wanted:
        raise UsageError("no fold given")
    missing = [str(f) for f in wanted if str(f) not in having]
    if missing:
        raise UsageError(
            f"{folder}: fold {', '.join(missing)} has no checkpoint_{checkpoint}.pth. Folds there: {listed}. Train it, "
            "or choose another with --fold or --checkpoint"
        )
    return tuple(int(f) if str(f).isdigit() else f for f in dict.fromkeys(wanted))


def _told(folder: Path, fold: str) -> str:
    names = [name for name in CHECKPOINTS if checkpoint_file(folder, fold, name).is_file()]
    return f"{fold} ({', '.join(names) or 'no checkpoint'})"


def _configuration(plan: Plan, checkpoints: Sequence[Checkpoint]) -> Configuration:
    names = {c.configuration for c in checkpoints}
    if len(names) > 1:
        told = ", ".join(f"{c.path}: {c.configuration}" for c in checkpoints)
        raise CheckpointError(f"the folds belong to different configurations: {told}")
    (name,) = names
    if name not in plan.configurations:
        raise CheckpointError(
            f"{checkpoints[0].path}: of configuration {name!r}, which plans.json beside it does not have. There are: "
            f"{', '.join(plan.configurations)}"
        )
    return plan.configurations[name]


class _WithoutRandomFilling(torch.overrides.TorchFunctionMode):
    """Leaves out the random initialisation of weights that are about to be loaded: half the time of starting up."""

    _INITIALISERS: tuple[str, ...] = (
        "uniform_",
        "normal_",
        "trunc_normal_",
        "xavier_uniform_",
        "xavier_normal_",
        "kaiming_uniform_",
    )
    _INITIALISERS += ("kaiming_normal_", "orthogonal_", "sparse_")
    _RANDOM = (Tensor.normal_, Tensor.uniform_, *(getattr(nn.init, name) for name in _INITIALISERS))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._RANDOM:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
