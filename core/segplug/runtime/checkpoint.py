"""Checkpoints: nnU-Net's files, read without running code from them.

A checkpoint is a torch zip with the keys of nnunetv2 2.8.1 (`network_weights`, `optimizer_state`, `grad_scaler_state`,
`logging`, `_best_ema`, `current_epoch`, `init_args`, `trainer_name`, `inference_allowed_mirroring_axes`). Own ones hold
plain values and tensors only, so that both programs and `torch.load(weights_only=True)` read them; what nnU-Net has no
word for stands under the key `segplug`. They are written by `segplug.runtime.checkpoint_writer`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import segplug
from segplug.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

EXTENSION = "segplug"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says.

    Args:
        path: where it was read.
        weights: by the network's own names; no prefix of a wrapper is left.
        configuration, fold: what was trained.
        trainer: nnU-Net's name of the trainer.
        mirror_axes: spatial axes that prediction may mirror along; empty for none.
        epochs_done: epochs that are in it.
        plans, dataset_json: as they were at training, JSON values.
        extension: what segplug adds: provenance, recipe, seed, version. Empty in nnU-Net's own.
        state: the whole content, for resuming; `network_weights` has the names of the file.
    """

    path: Path
    weights: Mapping[str, Tensor]
    configuration: str
    fold: int | str
    trainer: str
    mirror_axes: tuple[int, ...]
    epochs_done: int
    plans: Mapping[str, Any]
    dataset_json: Mapping[str, Any]
    extension: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path, *, mapped: bool = False) -> Checkpoint:
    """Read a checkpoint of segplug or nnunetv2.

    Args:
        mapped: leave tensors in the file until they are used; what is never used (the optimiser at prediction) is never
            read.

    Raises:
        CheckpointError: the file is missing, damaged, no such checkpoint, or holds anything but tensors and plain
            values; the message names what was found.
    """
    content = _load(path, mapped)
    try:
        init = content["init_args"]
        return Checkpoint(
            path=path,
            weights=without_prefixes(content["network_weights"]),
            configuration=init["configuration"],
            fold=init["fold"],
            trainer=content["trainer_name"],
            mirror_axes=tuple(content.get("inference_allowed_mirroring_axes") or ()),
            epochs_done=content["current_epoch"],
            plans=init["plans"],
            dataset_json=init["dataset_json"],
            extension=content.get(EXTENSION, {}),
            state=content,
        )
    except (KeyError, TypeError, AttributeError) as error:
        keys = ", ".join(map(str, content)) if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise CheckpointError(
            f"{path}: not a checkpoint of segplug or nnU-Net v2: found {keys or 'nothing'}; missing or wrong: {error}. "
            "Give a checkpoint_*.pth of a fold folder"
        ) from None


def read_content(path: Path) -> Any:
    """Read what a file of torch holds: tensors and plain values, however they are arranged.

    Raises:
        CheckpointError: the file is missing or damaged, or holds anything else.
    """
    return _load(path, mapped=False)


def checkpoint_content(
    network: nn.Module,
    *,
    plans: Mapping[str, Any],
    configuration: str,
    fold: int | str,
    dataset_json: Mapping[str, Any],
    trainer: str,
    mirror_axes: tuple[int, ...],
    state: Mapping[str, Any],
    extension: Mapping[str, Any],
) -> dict[str, Any]:
    """Put a checkpoint together, in nnU-Net's keys.

    Args:
        network: wrapped (data-parallel, compiled) or not; its weights are not copied here.
        state: `optimizer_state`, `current_epoch` (epochs done), `logging`, `_best_ema`, with fp16 `grad_scaler_state`;
            further keys go into the file as they are.
        extension: what stands under `segplug`; the version is added.
    """
    return {
        "network_weights": without_prefixes(network.state_dict()),
        "grad_scaler_state": None,
        **state,
        "init_args": {
            "plans": plans,
            "configuration": configuration,
            "fold": fold,
            "dataset_json": dataset_json,
        },
        "trainer_name": trainer,
        # nnU-Net takes None for no mirroring, and fails on an empty tuple
        "inference_allowed_mirroring_axes": tuple(mirror_axes) or None,
        EXTENSION: {"version": segplug.__version__, **extension},
    }


def without_prefixes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the network's own names: without `module.` (data-parallel) and `_orig_mod.` (compiled)."""
    found = {name.replace("_orig_mod.", ""): tensor for name, tensor in weights.items()}
    while found and all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    return found


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a network; every name and shape has to fit.

    Raises:
        CheckpointError: they do not; the message names what is missing, left over or of another shape.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in weights]
    unknown = [name for name in weights if name not in own]
    shapes = [
        f"{name} {tuple(weights[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    problems = [
        f"{what}: {_some(names)}"
        for what, names in (("not there", missing), ("left over", unknown), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{source}: weights do not fit the network of the plan; {'; '.join(problems)}. "
            "Plan, data set and checkpoint must belong together"
        )
    network.load_state_dict(dict(weights))


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _load(path: Path, mapped: bool) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and _is_zip(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise anything
        foreign = _foreign_names(path)
        if foreign:
            raise CheckpointError(
                f"{path}: holds {', '.join(foreign)}; expected tensors, numbers and texts alone, for anything else can "
                "run code when it is read. If you trust the file, load it with the program that wrote it and save the "
                "weights as plain tensors"
            ) from None
        first = str(error).strip().split("\n", 1)[0]
        # torch advises to read such a file without its guard, which nobody should do
        told = "it cannot be unpickled" if "weights_only" in first else f"{type(error).__name__}: {first}"
        raise CheckpointError(
            f"{path}: damaged or no checkpoint: {told}. Give a checkpoint_*.pth of a fold folder; if it is one, copy "
            "it again or use another of the fold"
        ) from None


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _foreign_names(path: Path) -> list[str]:
    """Names in the file that neither torch nor we allow."""
    import torch

    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # unreadable: the first error tells more
        return []
    ours = {name for _, name in _STAND_INS}
    return sorted(set(named) - ours)


# --- numbers that nnunetv2 pickled as NumPy scalars ----------------------------------------------------------------


class _NumberType:
    """Stands in for `numpy.dtype` while reading: knows plain numbers and nothing else."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if code not in _STRUCT:
            raise ValueError(f"a NumPy scalar of type {code!r}")
        self.format = _STRUCT[code]
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _number(kind: _NumberType, raw: bytes) -> int | float | bool:
    """Stands in for NumPy's scalar constructor: a Python number of the same value."""
    (value,) = struct.unpack(f"{kind.order}{kind.format}", raw)
    return value  # type: ignore[no-any-return]


_STRUCT = {"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"} | {
    "f2": "e",
    "f4": "f",
    "f8": "d",
}
_STAND_INS: list[Any] = [
    (_NumberType, "numpy.dtype"),
    (_number, "numpy._core.multiarray.scalar"),
    (_number, "numpy.core.multiarray.scalar"),  # NumPy 1
]
