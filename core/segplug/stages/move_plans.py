"""Stage: plan a data set like another one, so that a network trained on one can go on with the other."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segplug.errors import DataError, UsageError
from segplug.kernel.provenance import record
from segplug.model import Plan
from segplug.runtime.files import read_json, replacing, write_json
from segplug.runtime.plan_codec import EXTENSION, decode_plan, read_plan
from segplug.runtime.plan_components import check_components, nnunet_name
from segplug.runtime.planned import find_plan, is_plans_name
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import choose_reader, load_dataset
from segplug.runtime.splits import adopt_splits

STAGE = "plan"


def move_plans(
    project: Project,
    source: str | int | Path,
    target: str | int | Path,
    *,
    from_plans: str | None = None,
    plans_name: str | None = None,
) -> Plan:
    """Write the plans of data set `source` for `target`: networks, patch sizes, spacings, intensities stay as they are.

    What changes is what nnUNetv2_move_plans_between_datasets changes: the data set's name, the reader, and with another
    name the folders of preprocessed cases.

    Args:
        from_plans: which plans of `source`; None for `nnUNetPlans`, or the only ones.
        plans_name: their name in `target`; None keeps it.

    Raises:
        UsageError: no such data set or plans; `target` has other plans of this name.
        DataError: the plans are damaged, or made for images of another number of channels.
        PluginError: a component of the plans does not exist.
    """
    if plans_name is not None and not is_plans_name(plans_name):
        raise UsageError(f"plans name {plans_name!r}: expected a plain file name, as in nnUNetPlans")
    workspace = project.workspace
    raw = load_dataset(workspace.raw_folder(target))
    source_name = workspace.dataset_name(source)
    found = find_plan(workspace, source_name, from_plans)
    old_name = from_plans or found.plans_name
    name = plans_name or old_name
    file, source_file = workspace.plans_file(raw.name, name), workspace.plans_file(source_name, old_name)
    registry = project.kernel.registry
    with project.stage(STAGE, f"{raw.name} (plans of {source_name})", 1):
        reader = nnunet_name(registry, "readers", choose_reader(raw, project.kernel))
        moved = {**_renamed(read_json(source_file), old_name, name), "dataset_name": raw.name, "plans_name": name}
        moved["image_reader_writer"] = reader
        plan = decode_plan(moved, source_file)
        for configuration in plan.configurations.values():
            if len(configuration.normalization) != raw.description.num_channels:
                raise DataError(
                    f"{source_file}: {configuration.name} is planned for {len(configuration.normalization)} channels, "
                    f"and images of {raw.name} have {raw.description.num_channels}. Plan it for itself"
                )
        planners = [each for each in plan.provenance if each["kind"] == "planners"]
        used = [*planners, *record(check_components(registry, plan))]
        moved[EXTENSION] = {**moved.get(EXTENSION, {}), "provenance": used}
        if file.is_file() and read_json(file) != moved:
            raise UsageError(f"{file}: {raw.name} has other plans of this name. Give a new one with --plans-name")
        adopt_splits(raw.folder, workspace.splits_file(raw.name))
        with replacing(workspace.preprocessed_folder(raw.name) / "dataset.json") as partial:
            shutil.copyfile(raw.folder / "dataset.json", partial)
        write_json(file, moved)
        project.progress(STAGE, name, 1, 1)
    return read_plan(file)


def _renamed(raw: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """The plans with the folders of preprocessed cases named after the new name, where they name one themselves."""
    if old == new:
        return dict(raw)
    configurations = {}
    for key, entry in raw["configurations"].items():
        configurations[key] = dict(entry)
        if "data_identifier" in entry:
            folder: str = entry["data_identifier"]
            rest = folder.removeprefix(old) if folder.startswith(old) else f"_{folder}"
            configurations[key]["data_identifier"] = new + rest
    return {**raw, "configurations": configurations}
