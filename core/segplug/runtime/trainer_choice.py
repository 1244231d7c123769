"""Which trainer trains a configuration, with which settings, and under which name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from segplug.errors import PluginError, UsageError
from segplug.kernel import Kernel, Provided, Registry
from segplug.model import ComponentRef, Plan
from segplug.runtime.overrides import apply_overrides, as_settings, configure, split_assignment
from segplug.runtime.user_choice import named_by_user

PREFIX = "trainer"
NNUNET_TRAINER = "nnUNetTrainer"
NNUNET_NETWORKS = "dynamic_network_architectures.architectures.unet."
"""Begins the names by which nnunetv2 imports the networks that it can build from plans."""

COMPONENTS = {
    "loss": "losses",
    "optimizer": "optimizers",
    "schedule": "schedules",
    "augmentation": "augmentations",
    "network": "architectures",
}
"""Fields of trainers that name a component, and its kind."""


@dataclass(frozen=True)
class ChosenTrainer:
    """A trainer ready to train.

    Args:
        provided: the component.
        trainer: what its factory made, with its settings.
        changed: settings that differ from those of the training that is continued, `field: before -> now`.
        asked: names of the settings that the user gave.
    """

    provided: Provided
    trainer: Any
    changed: Sequence[str] = field(default=())
    asked: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.provided.component.name

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values; empty for a trainer that is no dataclass."""
        return as_settings(self.trainer) if hasattr(self.trainer, "__dataclass_fields__") else {}

    @property
    def ends(self) -> tuple[int | None, int | None]:
        """Its epochs and its patience, as far as it has them: what says when a training is over."""
        return getattr(self.trainer, "epochs", None), getattr(self.trainer, "patience", None)

    @property
    def components(self) -> list[tuple[str, str]]:
        """Kind and name of the trainer and of what its settings name."""
        refs = [(kind, getattr(self.trainer, part, None)) for part, kind in COMPONENTS.items()]
        named = [(kind, ref.name) for kind, ref in refs if isinstance(ref, ComponentRef)]
        return [("trainers", self.provided.asked), *named]


def choose_trainer(
    kernel: Kernel,
    plan: Plan,
    configuration: str,
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    epochs: int | None = None,
    continued: Mapping[str, Any] | None = None,
) -> ChosenTrainer:
    """Find the trainer and its settings.

    The trainer is the user's `name`, else that of the training that is continued, else that of the plan's recipe, else
    what the choice hook answers. Its settings are its defaults, changed by the plan's recipe (if it is the recipe's
    trainer), or those of the training that is continued; `overrides` and `epochs` come last.

    Args:
        overrides: assignments ``trainer.<field>=<value>``.
        epochs: short for ``trainer.epochs=<epochs>``.
        continued: ``{"name": ..., "settings": {...}}`` of the training to continue.

    Raises:
        UsageError: `name` or a setting does not exist or has a wrong value, or another trainer began the training.
        PluginError: the trainer that the plan names does not exist, or a trainer is none.
    """
    recipe = plan.recipe(configuration)
    chosen = name or (continued or {}).get("name") or (recipe.name if recipe else None)
    chosen = chosen or kernel.choose("segplug_choose_trainer", plan=plan, configuration=configuration)
    if chosen is None:
        raise PluginError(
            "no plugin names a trainer (segplug_choose_trainer), and neither do you (--trainer) or the plan"
        )
    with named_by_user("trainer") if name else nullcontext():
        provided = kernel.registry.resolve("trainers", chosen)
    trainer = kernel.registry.build("trainers", chosen)
    before: dict[str, Any] = {}
    if continued:
        before = _recorded(continued, provided, trainer)
        trainer = configure(trainer, before, PREFIX)
    elif recipe and kernel.registry.resolve("trainers", recipe.name) == provided:
        trainer = configure(trainer, recipe.options, f"{PREFIX} (recipe of {plan.plans_name})")
    if epochs is not None:
        if not hasattr(trainer, "epochs"):
            raise UsageError(f"--epochs: trainer {provided.component.name!r} has no epochs")
        overrides = [*overrides, f"{PREFIX}.epochs={epochs}"]
    trainer = apply_overrides(trainer, overrides, PREFIX)
    asked = frozenset(split_assignment(text, PREFIX)[0][0] for text in overrides)
    if "network" in asked and isinstance(getattr(trainer, "network", None), ComponentRef):
        with named_by_user(f"{PREFIX}.network"):
            kernel.registry.find("architectures", trainer.network.name)
    found = ChosenTrainer(provided, trainer)
    now = found.settings
    changed = [f"{key}: {before[key]} -> {now[key]}" for key in before if before[key] != now.get(key)]
    return ChosenTrainer(provided, trainer, tuple(changed), asked)


def check_components(registry: Registry, chosen: ChosenTrainer) -> None:
    """Find mistakes in the names of a trainer's components and of their options before anything is begun or moved.

    Raises:
        UsageError: one that the user named does not exist, or does not take an option.
        PluginError: the same of one that the plan names, or one cannot be loaded.
    """
    for name, kind in COMPONENTS.items():
        ref = getattr(chosen.trainer, name, None)
        if isinstance(ref, ComponentRef):
            with named_by_user(f"{PREFIX}.{name}") if name in chosen.asked else nullcontext():
                registry.check(kind, ref)


def record(chosen: ChosenTrainer) -> dict[str, Any]:
    """What a checkpoint says of its trainer; `choose_trainer` takes it as `continued`."""
    return {"name": chosen.name, "settings": chosen.settings}


def public_name(registry: Registry, trainer: str, architecture: str, settings: Any = None) -> str:
    """Name of a trainer in checkpoints: nnU-Net's, whenever nnunetv2 can build the network, else the component's.

    nnunetv2 imports the trainer named in a checkpoint only to build its network. A component that is named after a
    class of nnunetv2 with a network of its own, such as `nnUNet_Primus_M_Trainer`, has the right name already.

    Args:
        architecture: the plan's.
        settings: the trainer with its settings. Its attribute `nnunet_class`, if it has one that is not None, is the
            only class of nnunetv2 that builds the network; `network`, the network in the place of the plan's.
    """
    own = getattr(settings, "network", None)
    if not _known_to_nnunet(registry, own.name if isinstance(own, ComponentRef) else architecture):
        return _component_name(registry, trainer)
    return getattr(settings, "nnunet_class", None) or _nnunet_class(registry, trainer)


def folder_name(registry: Registry, trainer: str, architecture: str, settings: Any = None) -> str:
    """Trainer part of a model folder's name.

    Built-in trainers stand as nnunetv2's class where it can build the network; others have their own folders.
    """
    builtin = registry.resolve("trainers", trainer).plugin.builtin
    return public_name(registry, trainer, architecture, settings) if builtin else _component_name(registry, trainer)


def _nnunet_class(registry: Registry, trainer: str) -> str:
    """nnunetv2's class of this name, if the trainer is built in and stands for one, else `nnUNetTrainer`."""
    provided = registry.resolve("trainers", trainer)
    # built-in trainers with a capital letter in their name are named after nnunetv2's classes
    named = provided.plugin.builtin and not provided.component.name.islower()
    return provided.component.name if named else NNUNET_TRAINER


def _known_to_nnunet(registry: Registry, architecture: str) -> bool:
    provided = registry.resolve("architectures", architecture)
    return provided.plugin.builtin and any(name.startswith(NNUNET_NETWORKS) for name in provided.names)


def _component_name(registry: Registry, trainer: str) -> str:
    return registry.resolve("trainers", trainer).component.name


def _recorded(continued: Mapping[str, Any], provided: Provided, trainer: Any) -> dict[str, Any]:
    """Settings to continue with; fields that the trainer no longer has are left out."""
    began = continued["name"]
    if began != provided.component.name:
        raise UsageError(
            f"--continue: this fold was begun by trainer {began!r}, not {provided.component.name!r}. Name it "
            f"(--trainer {began}), or train without --continue"
        )
    return {key: value for key, value in continued["settings"].items() if hasattr(trainer, key)}
