"""What a trainer changes in the network that a plan describes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from segplug.errors import UsageError
from segplug.kernel import Registry
from segplug.model import Configuration, Plan
from segplug.runtime.plan_checks import of_strides


def adapted_plan(plan: Plan, configuration: str, trainer: Any) -> Plan:
    """The plan as it is trained: with what the trainer changes in the configuration (see `protocols.Trainer`).

    Raises:
        UsageError: the trainer's settings do not go with this configuration.
    """
    before = plan.configurations[configuration]
    try:
        after = trainer.adapt(before) if hasattr(trainer, "adapt") else before
    except ValueError as error:
        raise UsageError(f"trainer, configuration {configuration}: {error}") from error
    if after == before:
        return plan
    for problem in of_strides(after):
        raise UsageError(f"trainer, configuration {configuration}: {problem}")
    return replace(plan, configurations={**plan.configurations, configuration: after})


def as_trained(registry: Registry, configuration: Configuration, trainer: str) -> Configuration:
    """A configuration as a trainer of this name changed it, for models of nnunetv2, whose plans do not tell.

    Args:
        trainer: as a checkpoint names it. One that is not among the built-in ones changes nothing that is known here.

    Raises:
        PluginError: nnunetv2 has a trainer of this name, with a network that is not to be had here.
    """
    builtin = [found for found in registry.all("trainers") if found.plugin.builtin and found.answers_to(trainer)]
    if not builtin:
        return configuration
    made = registry.build("trainers", builtin[0].qualified_name)
    return made.adapt(configuration) if hasattr(made, "adapt") else configuration
