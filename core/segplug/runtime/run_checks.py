"""Mistakes in what `run` is asked for, found before hours are spent on the data."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from segplug.errors import DataError, UsageError
from segplug.kernel import Kernel
from segplug.model import ComponentRef, Plan
from segplug.runtime.device import resolve_device, resolve_precision
from segplug.runtime.overrides import apply_overrides, split_assignment
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.planned import plans_names
from segplug.runtime.trainer_choice import PREFIX, check_components, choose_trainer
from segplug.runtime.user_choice import named_by_user
from segplug.runtime.workspace import Workspace

PLANNED = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
"""Names of the configurations that nnU-Net's planners make."""


def check_configurations(
    workspace: Workspace, kernel: Kernel, dataset: str, planner: str | ComponentRef | None, wanted: Sequence[str]
) -> None:
    """Refuse a planner that does not exist, and configurations that no plan has or will have.

    Which of the possible ones a data set gets, planning tells. Planners of plugins may have names of their own.

    Args:
        planner: None for the default.

    Raises:
        UsageError: naming what there is.
    """
    name = planner.name if isinstance(planner, ComponentRef) else planner or "default"
    with named_by_user("planner"):
        provided = kernel.registry.find("planners", name)
    if not provided.plugin.builtin:
        return
    known = list(PLANNED)
    for plans in plans_names(workspace, dataset):
        try:
            known += read_plan(workspace.plans_file(dataset, plans)).configurations
        except DataError:  # told when it is used
            continue
    for configuration in wanted:
        if configuration not in known:
            near = get_close_matches(configuration, known, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]}?" if near else ""
            there = ", ".join(dict.fromkeys(known))
            raise UsageError(f"{dataset} has no configuration {configuration!r}.{hint} There can be: {there}")


def check_call(kernel: Kernel, trainer: str | None, overrides: Sequence[str], device: str, precision: str) -> None:
    """Refuse a device, precision, trainer or setting that cannot be, as far as it can be told without a plan.

    Raises:
        UsageError: one of them is not there, or a setting does not have the form of one.
    """
    resolve_precision(precision, resolve_device(device))
    for assignment in overrides:
        split_assignment(assignment, PREFIX)
    if trainer is not None:
        with named_by_user("trainer"):
            made = kernel.registry.build("trainers", trainer)
        apply_overrides(made, overrides, PREFIX)


def check_trainers(
    kernel: Kernel,
    plan: Plan,
    configurations: Sequence[str],
    trainer: str | None,
    overrides: Sequence[str],
    epochs: int | None,
) -> None:
    """The same once there is a plan, whose recipe may name the trainer: everything that training would refuse.

    Raises:
        UsageError, PluginError: see `choose_trainer` and `check_components`.
    """
    for configuration in configurations:
        chosen = choose_trainer(kernel, plan, configuration, name=trainer, overrides=overrides, epochs=epochs)
        check_components(kernel.registry, chosen)
