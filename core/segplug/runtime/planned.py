"""Which plan and configuration a command means."""

from __future__ import annotations

import re
from difflib import get_close_matches

from segplug.errors import UsageError
from segplug.model import Configuration, Plan
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.workspace import Workspace

DEFAULT_PLANS = "nnUNetPlans"
OTHER_FILES = ("dataset", "dataset_fingerprint", "splits_final")
"""Names that plans cannot have: those of other files in their folder."""


def find_plan(workspace: Workspace, dataset: str, plans_name: str | None = None) -> Plan:
    """Read a data set's plan.

    Args:
        dataset: the data set's name.
        plans_name: None for `nnUNetPlans`, or the only plans there are if that is not among them.

    Raises:
        UsageError: there is no such plan, or several and none was named; the message lists them.
        DataError: the file is damaged.
    """
    there = plans_names(workspace, dataset)
    name = plans_name
    if name is None:
        name = DEFAULT_PLANS if DEFAULT_PLANS in there or len(there) != 1 else there[0]
    if name in there:
        return read_plan(workspace.plans_file(dataset, name))
    if plans_name is None and there:
        raise UsageError(f"{dataset} has several plans: {', '.join(there)}. Name one with --plans-name")
    near = get_close_matches(name, there, n=1, cutoff=0.5)
    hint = f" Did you mean --plans-name {near[0]}?" if near else ""
    raise UsageError(
        f"{workspace.plans_file(dataset, name)}: no such plans.{hint} There are: {', '.join(there) or 'none'}. "
        f"Make them: segplug plan {dataset}"
    )


def find_configuration(plan: Plan, name: str) -> Configuration:
    """A configuration of a plan.

    Raises:
        UsageError: there is none of this name; the message lists those there are.
    """
    if name not in plan.configurations:
        near = get_close_matches(name, plan.configurations, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"{plan.plans_name} of {plan.dataset_name} has no configuration {name!r}.{hint} "
            f"There are: {', '.join(plan.configurations)}"
        )
    return plan.configurations[name]


def plans_names(workspace: Workspace, dataset: str) -> list[str]:
    """Names of a data set's plans, sorted."""
    return sorted(f.stem for f in workspace.preprocessed_folder(dataset).glob("*.json") if is_plans_name(f.stem))


def is_plans_name(name: str) -> bool:
    """Whether `<name>.json` can be a plans file: a plain file name, and none that another file of the folder has."""
    return name not in OTHER_FILES and re.fullmatch(r"\w[\w.+-]*", name) is not None
