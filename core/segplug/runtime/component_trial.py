"""Wrong values of options are told before anything is begun or moved: a trainer's components are made once to see."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from segplug.errors import WrongReferenceError
from segplug.kernel import Registry
from segplug.model import ComponentRef, Configuration, DatasetDescription
from segplug.protocols import AugmentationContext
from segplug.runtime.component_text import check_types
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
    for name, kind in ("optimizer", "optimizers"), ("schedule", "schedules"):
        offers[name] = kind, {}
    trials = {"optimizer": _try_optimizer, "schedule": _try_schedule}
    for name, (kind, offered) in offers.items():
        ref = getattr(chosen.trainer, name, None)
        if isinstance(ref, ComponentRef):
            with named_by_user(f"{PREFIX}.{name}") if name in chosen.asked else nullcontext():
                check_types(registry, kind, ref)
                built = registry.build(kind, ref, **offered)
                if name in trials:
                    _tried(trials[name], built, chosen.trainer, ref)


def _tried(trial: Callable[[Any, Any], object], built: Any, trainer: Any, ref: ComponentRef) -> None:
    try:
        trial(built, trainer)
    except (ValueError, TypeError, ArithmeticError) as error:
        options = f" with the options {dict(ref.options)}" if ref.options else ""
        raise WrongReferenceError(f"{ref.name} cannot be used{options}: {error}") from None


def _try_optimizer(make: Any, trainer: Any) -> None:
    import torch

    make([torch.nn.Parameter(torch.zeros(1))], lr=getattr(trainer, "lr", 1e-3), weight_decay=0.0)


def _try_schedule(schedule: Any, trainer: Any) -> None:
    first = getattr(trainer, "lr", 1e-3)
    epochs, iterations = getattr(trainer, "epochs", 1), getattr(trainer, "iterations_per_epoch", 1)
    for epoch, iteration in (0, 0), (epochs - 1, iterations - 1):
        rate = schedule(first, epoch=epoch, epochs=epochs, iteration=iteration, iterations=iterations)
        if not 0 <= rate < math.inf:
            raise ValueError(f"the learning rate of epoch {epoch + 1} would be {rate}")
