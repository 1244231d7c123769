"""Decide networks, patch sizes and preprocessing for a data set."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segplug.errors import DataError, PluginError, UsageError
from segplug.kernel import Kernel
from segplug.kernel.provenance import record
from segplug.model import Budget, ComponentRef, DatasetDescription, Fingerprint, Plan, RawDataset
from segplug.runtime.files import read_json, replacing, write_json
from segplug.runtime.fingerprint_codec import read_fingerprint
from segplug.runtime.plan_codec import EVERY, EXTENSION, decode_plan, encode_plan
from segplug.runtime.plan_components import check_components, nnunet_name
from segplug.runtime.planned import OTHER_FILES, is_plans_name
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import choose_reader, load_dataset
from segplug.runtime.splits import adopt_splits
from segplug.runtime.user_choice import named_by_user
from segplug.runtime.wording import counted
from segplug.stages.fingerprint import is_stale

STAGE = "plan"


def plan(
    project: Project,
    dataset: str | int | Path,
    *,
    planner: str | ComponentRef = "default",
    memory_gb: float | None = None,
    spacing: Sequence[float] | None = None,
    plans_name: str | None = None,
) -> Plan:
    """Plan a data set and write `<plans_name>.json`; dataset.json and the raw data set's splits are copied beside it.

    Configurations that a plans file of this name has beyond the planned ones are kept (nnU-Net's rule).

    Args:
        dataset: id, name or path of a raw data set with a fingerprint.
        planner: the component that plans.
        memory_gb: GPU memory that training may use; None leaves it to the planner.
        spacing: target spacing of 3d_fullres (z, y, x) in the images' axis order; None leaves it to the planner.
        plans_name: None for the planner's own.

    Raises:
        DataError: no fingerprint, no plan is possible, an existing plans file is damaged, or the raw data set's splits
            are not those in use.
        UsageError: no such data set or planner, or memory, spacing or the plans' name are not usable.
        PluginError: a component does not exist or cannot be loaded, or the planner returned something else than a plan.
    """
    ref = ComponentRef(planner) if isinstance(planner, str) else planner
    budget = Budget(memory_gb, None if spacing is None else tuple(spacing), plans_name)
    _check_wishes(project.kernel, ref, budget)
    raw = load_dataset(project.workspace.raw_folder(dataset))
    description = with_components(project.kernel, raw.description, choose_reader(raw, project.kernel))
    with project.stage(STAGE, f"{raw.name} ({ref.name})", 1):
        found = _fingerprint(project, raw, description.reader)
        planned = make_plan(project.kernel, found, description, ref, budget)
        adopt_splits(raw.folder, project.workspace.splits_file(raw.name))
        with replacing(project.workspace.preprocessed_folder(raw.name) / "dataset.json") as partial:
            shutil.copyfile(raw.folder / "dataset.json", partial)
        planned = _write(project.workspace.plans_file(raw.name, planned.plans_name), planned)
        project.progress(STAGE, planned.plans_name, 1, 1)
    return planned


def make_plan(
    kernel: Kernel,
    fingerprint: Fingerprint,
    description: DatasetDescription,
    planner: ComponentRef,
    budget: Budget,
) -> Plan:
    """Plan a data set that is described, without any file.

    Args:
        description: with reader and normalizers chosen (`with_components`).

    Raises:
        DataError, UsageError, PluginError: see `plan`.
    """
    _check_wishes(kernel, planner, budget)
    registry = kernel.registry
    planned: Plan = registry.build("planners", planner)(fingerprint, description, budget)
    _check(planned, planner, description)
    used = [registry.find("planners", planner.name), *check_components(registry, planned)]
    return replace(planned, provenance=tuple(record(used)))


def with_components(kernel: Kernel, description: DatasetDescription, reader: str) -> DatasetDescription:
    """The description with the reader, and with normalizers chosen, by nnU-Net's names where it has them.

    Raises:
        PluginError: no plugin names a normalizer for a channel.
    """
    normalizers = []
    for channel in description.channel_names:
        name = kernel.choose("segplug_choose_normalizer", channel_name=channel)
        if name is None:
            raise PluginError(f"no plugin names a normalizer for channel {channel!r} (segplug_choose_normalizer)")
        normalizers.append(nnunet_name(kernel.registry, "normalizers", name))
    return replace(description, reader=nnunet_name(kernel.registry, "readers", reader), normalizers=tuple(normalizers))


def _check_wishes(kernel: Kernel, planner: ComponentRef, budget: Budget) -> None:
    """Refuse what the user wants and cannot have, before anything is read."""
    with named_by_user("planner"):
        kernel.registry.build("planners", planner)
    if budget.plans_name is not None and not is_plans_name(budget.plans_name):
        raise UsageError(
            f"plans name {budget.plans_name!r}: expected letters, digits, '_', '-', '+' or '.', as in nnUNetPlans, "
            f"and none of {', '.join(OTHER_FILES)}"
        )


def _fingerprint(project: Project, raw: RawDataset, reader: str | None) -> Fingerprint:
    file = project.workspace.fingerprint_file(raw.name)
    if not file.is_file():
        raise DataError(f"{file}: no such file. Run: segplug fingerprint {raw.name}")
    found = read_fingerprint(file)
    if is_stale(project, raw, found, reader):
        warnings.warn(
            f"{file} is out of date: files of {raw.name}, or their reader, have changed since. "
            "Run `segplug fingerprint` again",
            stacklevel=3,
        )
    return found


def _check(planned: Any, planner: ComponentRef, description: DatasetDescription) -> None:
    """What every other stage relies on.

    Raises:
        PluginError: the planner broke it.
    """
    problems = []
    if not isinstance(planned, Plan):
        raise PluginError(
            f"planner {planner.name!r} returned a {type(planned).__name__}; expected a segplug.model.Plan"
        )
    if not is_plans_name(planned.plans_name):
        problems.append(f"plans_name is {planned.plans_name!r}; expected a file name that no other file has")
    if planned.dataset_name != description.name:
        problems.append(f"dataset_name is {planned.dataset_name!r}, not {description.name!r}")
    if not planned.configurations:
        problems.append("there is no configuration")
    for name, configuration in planned.configurations.items():
        if name != configuration.name:
            problems.append(f"configuration {configuration.name!r} stands under {name!r}")
        if len(configuration.normalization) != description.num_channels:
            count = len(configuration.normalization)
            channels = counted(description.num_channels, "channel")
            problems.append(f"{name} has {counted(count, 'normalizer')} for {channels}")
        for role in ("inherits_from", "previous_stage"):
            other = getattr(configuration, role)
            if other is not None and other not in planned.configurations:
                problems.append(f"{role} of {name} is {other!r}, which is not there")
    if problems:
        raise PluginError(f"planner {planner.name!r} made a plan that cannot be: {'; '.join(problems)}")


def _write(file: Path, planned: Plan) -> Plan:
    """Write the plan, with what an existing file has beyond it; a file that would not change is left alone."""
    raw = encode_plan(planned)
    before = read_json(file) if file.is_file() else None
    if before is not None:
        decode_plan(before, file)  # a damaged file may hold a person's work: an error rather than overwritten
        raw = _with_added(raw, before)
    found = decode_plan(raw, file)
    if raw != before:
        write_json(file, raw)
    return found


def _with_added(raw: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The new plan with the old one's further configurations, as they stand there: what they inherit is new."""
    added = {name: entry for name, entry in before["configurations"].items() if name not in raw["configurations"]}
    if not added:
        return raw
    merged = {**raw, "configurations": {**raw["configurations"], **added}}
    ours, theirs = raw.get(EXTENSION, {}), before.get(EXTENSION, {})
    training = {n: r for n, r in theirs.get("training", {}).items() if n in added and n != EVERY}
    options = {n: o for n, o in theirs.get("options", {}).get("normalization", {}).items() if n in added}
    ours = {**ours, "training": {**training, **ours.get("training", {})}} if training else ours
    if options:
        normalization = {**options, **ours.get("options", {}).get("normalization", {})}
        ours = {**ours, "options": {**ours.get("options", {}), "normalization": normalization}}
    return {**merged, EXTENSION: ours} if ours else merged
