"""Weights of an encoder from a local file, made ready for `segplug train --pretrained`.

segplug begins a training with a checkpoint: it takes what has the network's names, lets the rest begin anew, and writes
file and hash into every checkpoint of the training. So a file with timm's names becomes such a checkpoint, once, for
the encoder and the number of channels of a plan. Nothing is downloaded, and no code from a file is run.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.errors import CheckpointError, DataError
from segplug_foundation.encoders import build_encoder
from segplug_foundation.rates import MODEL
from segplug_foundation.timm_library import timm

if TYPE_CHECKING:
    from torch import Tensor, nn

NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which training programs, timm's among them, put the weights; the first that is there counts."""

NOTE = "segplug_foundation"
"""Key of the checkpoint that says where the weights are from."""


@dataclass(frozen=True)
class Fitted:
    """An encoder's weights by timm's names.

    Args:
        digest: SHA-256 of the file that they are from.
        stem: what was done to the first layer, or nothing.
        unused: names in the file that the encoder has no use for: a classifier, or stages that are left out.
    """

    weights: Mapping[str, Tensor]
    digest: str
    stem: str
    unused: tuple[str, ...]


def fit(
    file: Path, encoder: str, channels: int, patch_size: Sequence[int], options: Mapping[str, Any] | None = None
) -> Fitted:
    """Read a file and fit its weights to an encoder.

    The first layer is made for the channels as timm does it: of three channels in the file, the sum for a single one,
    else they are repeated in turn and scaled by three by their number. Of one, it is shared out evenly. Embedded
    positions and windows are resized by timm's own functions.

    Raises:
        CheckpointError: the file is none of weights, or they are not this encoder's; the message has the names.
        DataError: there is no such encoder.
    """
    import torch

    given = read_weights(file)
    whole = build_encoder(encoder, channels, patch_size, options, whole=True)
    try:
        state = _as_timm_reads(given, whole)
    except Exception as error:  # timm's functions expect the names of the model
        raise _unlike(file, encoder, [f"timm cannot read it: {type(error).__name__}: {error}"]) from error
    stem = _adapt_stem(state, whole, channels)
    with torch.device("meta"):
        wanted = build_encoder(encoder, channels, patch_size, options).model.state_dict()  # type: ignore[union-attr]
    known = whole.state_dict()
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in known]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(weight.shape)}"
        for name, weight in wanted.items()
        if name in state and state[name].shape != weight.shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = [f"{what}: {_some(names)}" for what, names in found if names]
    if problems:
        raise _unlike(file, encoder, problems)
    chosen = {name: state[name].to(weight.dtype).clone() for name, weight in wanted.items()}
    return Fitted(chosen, digest_of(file), stem, tuple(name for name in state if name not in wanted))


def write_checkpoint(fitted: Fitted, source: Path, encoder: str, channels: int, to: Path) -> None:
    """Write what `segplug train --pretrained` takes, whole or not at all."""
    import torch

    content = {
        "network_weights": {f"{MODEL}.{name}": weight for name, weight in fitted.weights.items()},
        NOTE: {
            "file": str(source),
            "sha256": fitted.digest,
            "encoder": encoder,
            "channels": channels,
            "timm": timm().__version__,
        },
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f".partial-{uuid.uuid4().hex[:12]}-{to.name}")
    try:
        torch.save(content, partial)
        os.replace(partial, to)
    finally:
        partial.unlink(missing_ok=True)


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors of a file of safetensors or a zip of torch, by name; what wraps them is taken off.

    Raises:
        CheckpointError: it is missing, damaged, of another kind, or holds no tensors.
    """
    import torch

    try:
        with file.open("rb") as stream:
            head = stream.read(9)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
    try:
        if head.startswith(b"PK\x03\x04"):
            content = torch.load(file, map_location="cpu", weights_only=True)
        elif head[8:9] == b"{":
            from safetensors.torch import load_file

            content = load_file(file)
        else:
            raise CheckpointError(
                f"{file}: neither safetensors nor a zip of torch (torch.save since 1.6). Load it with the program that "
                "wrote it, if you trust it, and save the weights as safetensors"
            )
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can raise anything
        first = str(error).strip().partition("\n")[0]
        told = (
            "it holds more than tensors, which could run code"
            if "weights only" in first.lower().replace("_", " ")
            else first
        )
        raise CheckpointError(
            f"{file}: damaged, or no file of weights: {told}. Copy it again, or use another"
        ) from None
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not any(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(f"{file}: holds no weights by name; expected tensors, as model.state_dict() has them")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    while all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def digest_of(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _as_timm_reads(given: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """By the names of timm's model today: older names are replaced, embedded positions resized."""
    change: Any = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if change is None:
        return dict(given)
    takes_model = len(inspect.signature(change).parameters) > 1
    with warnings.catch_warnings(action="ignore"):  # of timm's interpolations about torch: nobody here can mend them
        return dict(change(dict(given), model) if takes_model else change(dict(given)))


def _adapt_stem(state: dict[str, Tensor], model: nn.Module, channels: int) -> str:
    """Make the first layers for this number of channels; says what was done."""
    config: Any = model.pretrained_cfg
    named = config.get("first_conv") or ()
    done = ""
    for layer in (named,) if isinstance(named, str) else named:
        weight = state.get(f"{layer}.weight")
        if weight is None or weight.ndim != 4 or weight.shape[1] == channels:
            continue
        if weight.shape[1] == 3:
            state[f"{layer}.weight"] = timm().models.adapt_input_conv(channels, weight.clone())
            rule = "the sum of three channels" if channels == 1 else f"three channels repeated for {channels}"
        elif weight.shape[1] == 1:
            state[f"{layer}.weight"] = weight.expand(-1, channels, -1, -1) / channels
            rule = f"one channel shared among {channels}"
        else:
            continue  # of another shape, and told so
        done = f"first layer {layer}: {rule}"
    return done


def _unlike(file: Path, encoder: str, problems: Sequence[str]) -> CheckpointError:
    return CheckpointError(
        f"{file}: not the weights of timm's {encoder!r}: {'; '.join(problems)}. Plan with the encoder that the file is "
        "of, or use another file"
    )


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def encoder_of_plans(plans: Mapping[str, Any], source: Path) -> tuple[str, Mapping[str, Any], tuple[int, ...]]:
    """Name, options and patch size of the encoder that a plans file has.

    Raises:
        DataError: it has none.
    """
    try:
        flat = plans["configurations"]["2d"]
        arguments, patch = flat["architecture"]["arch_kwargs"], flat["patch_size"]
        return str(arguments["encoder"]), arguments.get("encoder_options") or {}, tuple(patch)
    except (KeyError, TypeError):
        raise DataError(
            f"{source}: no plans for an encoder of timm. Make them: segplug timm plan DATASET --encoder NAME"
        ) from None
