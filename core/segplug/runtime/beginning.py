"""What a training begins with, made before anything is moved, so that a mistake in it costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.errors import UsageError
from segplug.kernel import Registry
from segplug.runtime.files import file_hash
from segplug.runtime.fold_work import FoldWork
from segplug.runtime.network import build_network, count_input_channels
from segplug.runtime.network_trial import try_network
from segplug.runtime.randomness import torch_seed
from segplug.runtime.trainer_choice import PREFIX
from segplug.runtime.wording import listed

if TYPE_CHECKING:
    from torch import nn

    from segplug.runtime.pretrained import Transfer


@dataclass(frozen=True)
class Beginning:
    """A network in memory, initialised from the seed.

    Args:
        transferred: what it took over from a checkpoint, if one was given.
        note: the same for the checkpoints of this training.
    """

    network: nn.Module
    transferred: Transfer | None
    note: dict[str, Any]


def begin(registry: Registry, work: FoldWork, pretrained: Path | None) -> Beginning:
    """Make the network, with the weights of `pretrained`, and show it to the trainer.

    Raises:
        UsageError: the trainer's settings do not go with the network.
        CheckpointError: the weights cannot be taken over.
        PluginError: the architecture is missing or fails.
    """
    import torch

    from segplug.runtime.pretrained import transfer

    labels, trainer = work.dataset.labels, work.chosen.trainer
    channels = count_input_channels(work.configuration, work.dataset.num_channels, labels)
    deep_supervision = bool(getattr(trainer, "deep_supervision", True))
    torch.manual_seed(torch_seed(work.seed, "network", work.trained.fold))
    network = build_network(registry, work.configuration, channels, labels.output_channels, deep_supervision)
    try_network(registry, network, work.configuration, channels, labels.output_channels, work.device)
    check: Callable[[Any], None] | None = getattr(trainer, "check_network", None)
    if check is not None:
        try:
            check(network)
        except ValueError as error:
            raise UsageError(f"{PREFIX}: {error}") from error
    if work.state.checkpoint is not None:
        before = work.state.checkpoint.extension
        return Beginning(network, None, {key: before[key] for key in ("pretrained",) if key in before})
    if pretrained is None:
        return Beginning(network, None, {})
    done = transfer(network, pretrained, work.dataset.raw["labels"], work.configuration.patch_size)
    _require_trained(done, getattr(trainer, "freeze", ()))
    note = {"file": str(done.file), "hash": done.digest, "anew": dict(done.anew), "adapted": dict(done.adapted)}
    return Beginning(network, done, {"pretrained": note})


def _require_trained(done: Transfer, frozen: Sequence[str]) -> None:
    """Refuse to freeze weights that the checkpoint did not bring: they would stay at random."""
    held = [f"{name} ({why})" for name, why in done.anew.items() if any(_overlap(name, part) for part in frozen)]
    if held:
        raise UsageError(
            f"{PREFIX}.freeze: {listed(held, 3)} could not be taken over from {done.file}, and frozen would "
            "stay at random. Freeze other parts, such as later stages of the encoder, or use a checkpoint that has "
            "these weights"
        )


def _overlap(one: str, other: str) -> bool:
    """Whether one part of a network is, or is in, the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def check_pretrained(work: FoldWork, file: Path) -> None:
    """Refuse what cannot be meant.

    Raises:
        UsageError: there is no such file, or the training to be continued began with another one.
    """
    if not file.is_file():
        raise UsageError(f"--pretrained {file}: no such file; expected a checkpoint_*.pth")
    if work.state.checkpoint is not None:
        before = work.state.checkpoint.extension.get("pretrained") or {}
        if before.get("hash") != file_hash(file):
            began = f"with {before['file']}" if before else "without pretrained weights"
            raise UsageError(
                f"--pretrained {file}: the training to be continued began {began}. Leave the option out, or train "
                "anew without --continue"
            )
