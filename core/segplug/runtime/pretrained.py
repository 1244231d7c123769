"""Weights of another training to begin with: of segplug, nnunetv2, or an encoder that nnssl pretrained.

Weights go by their names. What belongs to the task of the other training begins anew: the layers that make the output,
unless both have the same labels. nnU-Net's rule (its `load_pretrained_weights`) leaves those out always, and refuses
networks that differ anywhere else; here the first layer may differ in its channels, a transformer in its patch size,
and whole parts may be missing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segplug.errors import CheckpointError
from segplug.runtime.checkpoint import read_content, without_prefixes
from segplug.runtime.files import file_hash
from segplug.runtime.token_positions import POSITIONS, grid_there, interpolate

if TYPE_CHECKING:
    from torch import Tensor, nn

HEADS = ("seg_layers", "up_projection")
"""Modules of nnU-Net's networks that make the output: layers of the U-Nets, the whole decoder of Primus."""
NNSSL = "nnssl_adaptation_plan"
"""Key of nnssl's checkpoints; its value says by which names encoder and stem go there."""
NNSSL_PARTS = {"key_to_encoder": ("encoder.stages", "eva"), "key_to_stem": ("encoder.stem", "down_projection")}
"""Entries of nnssl's plan, and what nnU-Net's residual encoders and Primus call these parts."""
MASK_TOKEN = "mask_token"
"""Weight of Primus that stands for hidden tokens in pretraining, and for nothing in segmentation."""


@dataclass(frozen=True)
class Transfer:
    """What became of a network.

    Args:
        file: the checkpoint, `digest` its hash.
        taken: number of weights (tensors) that were taken over.
        anew: part of the network -> why it begins anew.
        adapted: weight taken over in another shape -> how.
    """

    file: Path
    digest: str
    taken: int
    anew: Mapping[str, str]
    adapted: Mapping[str, str]

    def lines(self) -> list[str]:
        """For people."""
        anew = [f"begins anew: {part}: {why}" for part, why in self.anew.items()]
        adapted = [f"adapted: {name}: {how}" for name, how in self.adapted.items()]
        return [f"pretrained: {self.taken} weights taken over from {self.file}", *adapted, *anew]


def transfer(network: nn.Module, file: Path, labels: Mapping[str, Any], patch_size: Sequence[int]) -> Transfer:
    """Take over the weights of a checkpoint into a network that is initialised already.

    Args:
        labels: of the data set, as dataset.json has them.
        patch_size: that the network is made for.

    Raises:
        CheckpointError: the file is no checkpoint, or of a network that does not fit; the message names the weights.
    """
    content = read_content(file)
    if not isinstance(content, Mapping) or not isinstance(content.get("network_weights"), Mapping):
        raise CheckpointError(f"{file}: no checkpoint of segplug, nnU-Net v2 or nnssl: it has no network_weights")
    saved = network.state_dict()  # a buffer that is not saved is computed, not learnt
    own = dict(network.named_parameters()) | {name: b for name, b in network.named_buffers() if name in saved}
    given = _offered(content, own)
    same_labels = _labels_of(content) == dict(labels)
    first = next((name for name, weight in own.items() if weight.ndim > 2), None)
    there = {name.split(".")[0] for name in given}
    anew: dict[str, str] = {}
    adapted: dict[str, str] = {}
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
        elif (moved := _positions(network, name, found, content, patch_size)) is not None:
            chosen[name], adapted[name] = moved
        elif name != first or not _same_but_channels(found, weight):
            problems.append(f"{name} {_size(found)}, not {_size(weight)}")
        elif found.shape[1] == 1:  # the response to equal channels stays what it was
            chosen[name] = found.expand_as(weight) / weight.shape[1]
            adapted[name] = f"made for 1 channel, shared among {weight.shape[1]}"
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
    return Transfer(file, file_hash(file), len(chosen), anew, adapted)


def _offered(content: Mapping[str, Any], own: Collection[str]) -> dict[str, Tensor]:
    """Weights by the network's names; of nnssl's pretraining, encoder and stem alone: the rest had another task."""
    weights = without_prefixes(content["network_weights"])
    plan = content.get(NNSSL)
    if not isinstance(plan, Mapping):
        return weights
    found = {name: weights[name] for name in (MASK_TOKEN,) if name in weights}
    for key, known in NNSSL_PARTS.items():
        theirs = plan.get(key)
        ours = next((part for part in known if any(name.startswith(f"{part}.") for name in own)), known[0])
        if isinstance(theirs, str):
            inside = {name for name in weights if name.startswith(f"{theirs}.")}
            found |= {ours + name.removeprefix(theirs): weights[name] for name in inside}
    return found


def _positions(
    network: nn.Module, name: str, found: Tensor, content: Mapping[str, Any], patch_size: Sequence[int]
) -> tuple[Tensor, str] | None:
    """Learnt positions of tokens for the network's own patches, and what was done; None if these are none."""
    module, _, last = name.rpartition(".")
    here = getattr(network.get_submodule(module), "grid", None)
    if last != POSITIONS or here is None or found.ndim != 3 or len(here) != len(patch_size):
        return None
    token = [n // tokens for n, tokens in zip(patch_size, here, strict=True)]
    there = grid_there(content, found.shape[1], token)
    weight = network.get_parameter(name)
    if there is None or found.shape[-1] != weight.shape[-1]:
        return None
    sides = [" x ".join(map(str, grid)) for grid in (there, here)]
    return interpolate(found, there, tuple(here)), f"interpolated from {sides[0]} tokens to {sides[1]}"


def _labels_of(content: Mapping[str, Any]) -> Any:
    init = content.get("init_args")
    dataset = init.get("dataset_json") if isinstance(init, Mapping) else None
    return dataset.get("labels") if isinstance(dataset, Mapping) else None


def _part(name: str) -> str:
    """The part of the network that a weight belongs to: its outputs, or what its name begins with."""
    parts = name.split(".")
    made = next((at for at, part in enumerate(parts) if part in HEADS), 0)
    return ".".join(parts[: made + 1])


def _same_but_channels(found: Tensor, weight: Tensor) -> bool:
    return found.ndim == weight.ndim and (found.shape[0], *found.shape[2:]) == (weight.shape[0], *weight.shape[2:])


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
