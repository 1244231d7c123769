"""Weights of another training to begin with: of segplug, nnunetv2, or an encoder that nnssl pretrained.

Weights go by their names. What belongs to the task of the other training begins anew: the layers that make the output,
unless both have the same labels. nnU-Net's rule (its `load_pretrained_weights`) leaves those out always, and refuses
networks that differ anywhere else; here the first layer may differ in its channels, and whole parts may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segplug.errors import CheckpointError
from segplug.runtime.checkpoint import read_content, without_prefixes
from segplug.runtime.files import file_hash

if TYPE_CHECKING:
    from torch import Tensor, nn

HEADS = "seg_layers"
"""Module of nnU-Net's networks that holds the layers that make the output."""
NNSSL = "nnssl_adaptation_plan"
"""Key of nnssl's checkpoints; its value says by which names encoder and stem go there."""
NNSSL_PARTS = {"key_to_encoder": "encoder.stages", "key_to_stem": "encoder.stem"}
"""Entries of nnssl's plan, and what nnU-Net's residual encoders call these parts."""


@dataclass(frozen=True)
class Transfer:
    """What became of a network.

    Args:
        file: the checkpoint, `digest` its hash.
        taken: number of weights (tensors) that were taken over.
        anew: part of the network -> why it begins anew.
    """

    file: Path
    digest: str
    taken: int
    anew: Mapping[str, str]

    def lines(self) -> list[str]:
        """For people."""
        anew = [f"begins anew: {part}: {why}" for part, why in self.anew.items()]
        return [f"pretrained: {self.taken} weights taken over from {self.file}", *anew]


def transfer(network: nn.Module, file: Path, labels: Mapping[str, Any]) -> Transfer:
    """Take over the weights of a checkpoint into a network that is initialised already.

    Args:
        labels: of the data set, as dataset.json has them.

    Raises:
        CheckpointError: the file is no checkpoint, or of a network that does not fit; the message names the weights.
    """
    content = read_content(file)
    if not isinstance(content, Mapping) or not isinstance(content.get("network_weights"), Mapping):
        raise CheckpointError(f"{file}: no checkpoint of segplug, nnU-Net v2 or nnssl: it has no network_weights")
    given = _offered(content)
    same_labels = _labels_of(content) == dict(labels)
    own = dict(network.named_parameters()) | dict(network.named_buffers())
    first = next((name for name, weight in own.items() if weight.ndim > 2), None)
    there = {name.split(".")[0] for name in given}
    anew: dict[str, str] = {}
    chosen: dict[str, Tensor] = {}
    problems = []
    for name, weight in own.items():
        found, part = given.get(name), _part(name)
        if part.endswith(HEADS) and not (same_labels and found is not None and found.shape == weight.shape):
            anew[part] = "not in the checkpoint" if found is None else "the labels are others"
        elif found is None and part not in there:
            anew[part] = "not in the checkpoint"
        elif found is None:
            problems.append(f"{name} is missing")
        elif found.shape == weight.shape:
            chosen[name] = found
        elif name != first or not _same_but_channels(found, weight):
            problems.append(f"{name} {_size(found)}, not {_size(weight)}")
        elif found.shape[1] == 1:  # the response to equal channels stays what it was
            chosen[name] = found.expand_as(weight) / weight.shape[1]
        else:
            anew[name] = f"made for {found.shape[1]} channels, not {weight.shape[1]}"
    if problems or not chosen:
        told = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        raise CheckpointError(
            f"{file}: made for another network: {told or 'no weight of the same name'}. Take over the plans too that "
            "it was trained with (plan --from-dataset), then preprocess and train with those"
        )
    with torch.no_grad():
        for name, values in chosen.items():
            own[name].copy_(values)
    return Transfer(file, file_hash(file), len(chosen), anew)


def _offered(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights by nnU-Net's names; of nnssl's pretraining, encoder and stem alone, for the rest had another task."""
    weights = without_prefixes(content["network_weights"])
    plan = content.get(NNSSL)
    if not isinstance(plan, Mapping):
        return weights
    found: dict[str, Tensor] = {}
    for key, ours in NNSSL_PARTS.items():
        theirs = plan.get(key)
        if isinstance(theirs, str):
            inside = {name for name in weights if name.startswith(f"{theirs}.")}
            found |= {ours + name.removeprefix(theirs): weights[name] for name in inside}
    return found


def _labels_of(content: Mapping[str, Any]) -> Any:
    init = content.get("init_args")
    dataset = init.get("dataset_json") if isinstance(init, Mapping) else None
    return dataset.get("labels") if isinstance(dataset, Mapping) else None


def _part(name: str) -> str:
    """The part of the network that a weight belongs to: its outputs, or what its name begins with."""
    parts = name.split(".")
    return ".".join(parts[: parts.index(HEADS) + 1]) if HEADS in parts else parts[0]


def _same_but_channels(found: Tensor, weight: Tensor) -> bool:
    return found.ndim == weight.ndim and (found.shape[0], *found.shape[2:]) == (weight.shape[0], *weight.shape[2:])


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
