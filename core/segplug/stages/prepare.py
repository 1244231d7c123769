"""Everything before training in one call: verify, fingerprint, plan and preprocess, each image read twice in all."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segplug.errors import DataError
from segplug.model import ComponentRef, Fingerprint, Plan
from segplug.runtime.files import read_json, value_hash
from segplug.runtime.fingerprint_codec import read_fingerprint
from segplug.runtime.planned import find_plan, plans_names
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.run_record import RunRecord
from segplug.stages.fingerprint import MADE_FROM, fingerprint, is_stale
from segplug.stages.plan import plan as make_plan
from segplug.stages.preprocess import Preprocessed, preprocess
from segplug.stages.verify import STAGE as VERIFY_STAGE
from segplug.stages.verify import verify, verify_and_fingerprint


@dataclass(frozen=True)
class Prepared:
    """What there is to train on."""

    fingerprint: Fingerprint
    plan: Plan
    preprocessed: Preprocessed


def prepare(
    project: Project,
    dataset: str | int | Path,
    *,
    planner: str | ComponentRef | None = "default",
    memory_gb: float | None = None,
    spacing: Sequence[float] | None = None,
    plans_name: str | None = None,
    configurations: Sequence[str] | None = None,
) -> Prepared:
    """Verify, fingerprint, plan and preprocess a data set; what `nnUNetv2_plan_and_preprocess` does.

    It gives what the four stages give one after the other, but starts the workers once, and reads each case once for
    verification and fingerprint together and once more to preprocess it. What is current is kept, as in the stages.

    Args:
        dataset: id, name or path of a raw data set.
        planner, memory_gb, spacing, plans_name: see `segplug.stages.plan.plan`. With a planner of None, plans that are
            there stay as they are, edited by hand or not.
        configurations: see `segplug.stages.preprocess.preprocess`.

    Raises:
        DataError: the data set has errors (all are listed), or a stage failed.
        UsageError: no such data set, planner or configuration, or a setting is wrong.
        PluginError: a component is missing.
    """
    made = verified_fingerprint(project, dataset)
    name = project.workspace.dataset_name(dataset)
    there = plans_names(project.workspace, name) if planner is None else []
    if plans_name in there or (there and plans_name is None):
        planned = find_plan(project.workspace, name, plans_name)
    else:
        planned = make_plan(
            project, dataset, planner=planner or "default", memory_gb=memory_gb, spacing=spacing, plans_name=plans_name
        )
    done = preprocess(
        project,
        dataset,
        configurations=configurations,
        plans_name=planned.plans_name,
    )
    return Prepared(made, planned, done)


def verified_fingerprint(project: Project, dataset: str | int | Path) -> Fingerprint:
    """The fingerprint of a data set without errors. Both are kept while files and dataset.json do not change.

    Raises:
        DataError: the data set has errors; all are listed. Warnings are warned of.
    """
    folder = project.workspace.raw_folder(dataset)
    record = RunRecord(project.workspace.preprocessed_folder(folder.name))
    current = _current(project, folder)
    if current is not None and record.verified == _state(folder, current):
        told_as_kept(project, VERIFY_STAGE, folder.name, "files unchanged since they were verified")
        return fingerprint(project, dataset)
    if current is None:
        verification, made = verify_and_fingerprint(project, dataset)
    else:
        verification, made = verify(project, dataset), current
    verification.raise_errors()
    for finding in verification.warnings:
        warnings.warn(str(finding).removeprefix("warning: "), stacklevel=3)
    made = fingerprint(project, dataset) if made is None or made is current else made
    record.note_verified(_state(folder, made))
    return made


def _current(project: Project, folder: Path) -> Fingerprint | None:
    """The fingerprint that segplug made of these files, if it did."""
    file = project.workspace.fingerprint_file(folder.name)
    try:
        found = read_fingerprint(file) if file.is_file() else None
        usable = found is not None and MADE_FROM in found.extra.get("segplug", {})
        return found if usable and found and not is_stale(project, load_dataset(folder), found) else None
    except DataError:  # damaged, as is the data set perhaps: what is wrong is told by verifying
        return None


def told_as_kept(project: Project, stage: str, subject: str, why: str) -> None:
    """Tell of a stage that had nothing to do."""
    with project.stage(stage, f"{subject} ({why}, kept)"):
        pass


def _state(folder: Path, made: Fingerprint) -> str:
    """Of the raw data: their files as the fingerprint saw them, and dataset.json."""
    return value_hash([made.extra.get("segplug", {}).get(MADE_FROM), read_json(folder / "dataset.json")])
