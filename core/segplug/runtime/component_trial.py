"""Wrong values of options are told before anything is begun or moved: a trainer's components are made once to see."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from segplug.kernel import Registry
from segplug.model import ComponentRef, Configuration, DatasetDescription
from segplug.protocols import AugmentationContext
from segplug.runtime.trainer_choice import PREFIX, ChosenTrainer, check_components
from segplug.runtime.user_choice import named_by_user


def try_components(
    registry: Registry, chosen: ChosenTrainer, configuration: Configuration, dataset: DatasetDescription
) -> None:
    """Find mistakes in the names, options and values of a trainer's components.

    Raises:
        UsageError: the user made it.
        PluginError: the plan did, or a component cannot be loaded.
    """
    check_components(registry, chosen)
    labels = dataset.labels
    context = AugmentationContext(configuration.patch_size, dataset.num_channels, configuration.use_mask_for_norm)
    offers: dict[str, tuple[str, dict[str, Any]]] = {
        "loss": (
            "losses",
            {
                "batch_dice": configuration.batch_dice,
                "regions": labels.has_regions,
                "classes": labels.output_channels,
            },
        ),
        "augmentation": ("augmentations", {"context": context}),
    }
    for name, (kind, offered) in offers.items():
        ref = getattr(chosen.trainer, name, None)
        if isinstance(ref, ComponentRef):
            with named_by_user(f"{PREFIX}.{name}") if name in chosen.asked else nullcontext():
                registry.build(kind, ref, **offered)
