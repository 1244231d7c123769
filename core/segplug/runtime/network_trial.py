"""A stranger's network is run once before a training begins: what it gives has to be logits of the patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segplug.errors import PluginError
from segplug.kernel import Registry
from segplug.model import Configuration

if TYPE_CHECKING:
    import torch
    from torch import nn


def try_network(
    registry: Registry,
    network: nn.Module,
    configuration: Configuration,
    input_channels: int,
    output_channels: int,
    device: torch.device,
) -> None:
    """Run a network of a plugin on one patch of zeros. Weights, and what is random afterwards, stay as they are.

    Built-in networks are known to be right, and are not run: on a CPU a large patch takes seconds.

    Args:
        network: is moved to `device`.

    Raises:
        PluginError: it fails, or what it returns is no tensor (batch, output_channels, *patch).
    """
    import torch

    name = configuration.architecture.name
    provided = registry.find("architectures", name)
    if provided.plugin.builtin:
        return
    what = f"architectures: {name!r} of {provided.plugin}"
    shape = (1, input_channels, *configuration.patch_size)
    training = network.training
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            found = network.to(device).train(False)(torch.zeros(shape, device=device))
    except torch.OutOfMemoryError:  # for the training to tell, which knows what to do
        return
    except Exception as error:  # a stranger's mistake can be any
        raise PluginError(f"{what} fails for an input of shape {shape}: {type(error).__name__}: {error}") from error
    finally:
        network.train(training)
    logits = found[0] if isinstance(found, (list, tuple)) and found else found
    expected = (1, output_channels, *configuration.patch_size)
    if not isinstance(logits, torch.Tensor):
        raise PluginError(f"{what} returned a {type(logits).__name__}; expected logits, a tensor of shape {expected}")
    if tuple(logits.shape) != expected:
        raise PluginError(
            f"{what} returned logits of shape {tuple(logits.shape)} for an input of shape {shape}; expected "
            f"{expected}: (batch, output channels, *patch)"
        )
