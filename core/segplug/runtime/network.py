"""The network of a configuration."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from segplug.errors import PluginError, SegplugError
from segplug.kernel import Registry
from segplug.model import ComponentRef, Configuration, LabelSet

if TYPE_CHECKING:
    from torch import nn


def count_input_channels(configuration: Configuration, image_channels: int, labels: LabelSet) -> int:
    """Channels the network sees: the image's, and in a cascade one per foreground label of the previous stage."""
    one_hot = len(labels.foreground_labels) if configuration.previous_stage else 0
    return image_channels + one_hot


def build_network(
    registry: Registry, configuration: Configuration, input_channels: int, output_channels: int, deep_supervision: bool
) -> nn.Module:
    """Build a configuration's network, initialised from torch's global generator.

    Args:
        input_channels: see `count_input_channels`.
        output_channels: channels of the logits, `LabelSet.output_channels`.
        deep_supervision: whether it returns logits of the lower resolutions too.

    Raises:
        PluginError: the plan names an architecture that is not installed, or that fails with its arguments.
        SegplugError: the arguments are not what the architecture needs.
    """
    from torch import nn

    build: Any = registry.build("architectures", configuration.architecture)
    offered = offered_patch(build, configuration.architecture, configuration.patch_size)
    try:
        network = build(input_channels, output_channels, deep_supervision=deep_supervision, **offered)
    except SegplugError:
        raise
    except Exception as error:  # a stranger's mistake can be any
        raise PluginError(
            f"configuration {configuration.name}: architectures: {configuration.architecture.name!r} cannot be built "
            f"from its arguments: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise PluginError(
            f"architecture {configuration.architecture.name!r} returned {type(network).__name__}, expected a "
            "torch module"
        )
    return network


def offered_patch(build: Any, architecture: ComponentRef, patch_size: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The patch size as a keyword for an architecture that names it, unless its options have one."""
    if "patch_size" in architecture.options:
        return {}
    try:
        return {"patch_size": patch_size} if "patch_size" in inspect.signature(build).parameters else {}
    except (TypeError, ValueError):  # a function that does not tell its arguments
        return {}
