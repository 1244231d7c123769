"""The preprocessed cases of a configuration: the store that holds them, and whether they are what the plan says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segplug.errors import DataError, UsageError
from segplug.model import Configuration, Plan, Split
from segplug.protocols import Store
from segplug.runtime.manifest import changed_settings
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import survey_dataset
from segplug.runtime.wording import counted
from segplug.runtime.workspace import Workspace

STORE = "blosc2"
"""The component that preprocessed cases are kept by."""


def open_store(project: Project, dataset: str, configuration: Configuration) -> Store:
    """The store of a configuration's preprocessed cases; its folder need not exist."""
    folder = project.workspace.store_folder(dataset, configuration.data_identifier)
    store: Store = project.kernel.registry.build("stores", STORE)(folder, configuration.patch_size)
    return store


def case_names(workspace: Workspace, dataset: str | int | Path, store: Store) -> list[str]:
    """All training cases, also those that preprocessing has not come to: splits made without them would stay so."""
    there = store.cases()
    try:
        survey, _ = survey_dataset(workspace.raw_folder(dataset))
    except UsageError:  # preprocessed data are enough to train
        return there
    return sorted({*there, *(survey.cases if survey else ())})


def require_cases(
    store: Store, split: Split, plan: Plan, configuration: Configuration, settings: Mapping[str, Any]
) -> None:
    """Refuse to train without some of the fold's cases, or with cases that were preprocessed in another way.

    Plans may share a folder of preprocessed cases, and a plan may be made again after they were.
    """
    missing, changed = [], set()
    for case in dict.fromkeys((*split.train, *split.val)):
        made_from = store.made_from(case)
        if made_from is None:
            missing.append(case)
        else:
            changed.update(changed_settings(made_from, settings))
    where = f"{plan.dataset_name}, configuration {configuration.name}"
    remedy = f"Run: segplug preprocess {plan.dataset_name} -c {configuration.name} --plans-name {plan.plans_name}"
    if missing:
        listed = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise DataError(f"{where}: {counted(len(missing), 'case')} of the fold not preprocessed: {listed}. {remedy}")
    if changed:
        raise DataError(
            f"{where}: cases in {configuration.data_identifier} were preprocessed otherwise than {plan.plans_name} "
            f"says ({', '.join(sorted(changed))}), for other plans or before these were changed. {remedy}"
        )
