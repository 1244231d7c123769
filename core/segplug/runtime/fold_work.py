"""What one training is about, found out before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.errors import DataError, UsageError
from segplug.model import Configuration, DatasetDescription, Plan, Split, TrainedFold
from segplug.protocols import Store
from segplug.runtime.case_preprocessing import preprocessing_settings
from segplug.runtime.checkpoint import Checkpoint
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.device import resolve_device, resolve_precision
from segplug.runtime.files import read_json, value_hash
from segplug.runtime.fold_folder import FoldState, read_state
from segplug.runtime.plan_codec import decode_plan, encode_plan
from segplug.runtime.planned import find_configuration, find_plan
from segplug.runtime.preprocessed_cases import case_names, open_store, require_cases
from segplug.runtime.project import Project
from segplug.runtime.splits import find_split
from segplug.runtime.trainer_choice import ChosenTrainer, choose_trainer, folder_name
from segplug.runtime.workspace import Workspace

if TYPE_CHECKING:
    import torch

DEFAULT_SEED = 0


@dataclass(frozen=True)
class FoldWork:
    """What is to be trained, with what, and how far it has come."""

    plan: Plan
    configuration: Configuration
    dataset: DatasetDescription
    split: Split
    store: Store
    chosen: ChosenTrainer
    trained: TrainedFold
    state: FoldState
    device: torch.device
    precision: str
    seed: int

    @property
    def subject(self) -> str:
        return f"{self.dataset.name} {self.configuration.name} fold {self.trained.fold}"

    @property
    def epochs(self) -> int | None:
        return getattr(self.chosen.trainer, "epochs", None)


def parse_fold(fold: int | str) -> int | str:
    """A fold's number, or `all`.

    Raises:
        UsageError: it is neither.
    """
    text = str(fold)
    if text != "all" and not text.isdecimal():
        raise UsageError(f"fold {text!r}: expected a number from 0 on, or all")
    return int(text) if text.isdecimal() else text


def find_work(
    project: Project,
    dataset: str | int | Path,
    configuration: str,
    fold: int | str,
    *,
    plans_name: str | None,
    trainer: str | None,
    overrides: Sequence[str],
    epochs: int | None,
    device: str,
    precision: str,
    seed: int | None,
    continue_: bool,
) -> FoldWork:
    """Find out what `segplug.stages.train.train` was asked for; arguments and errors as there."""
    workspace, registry = project.workspace, project.kernel.registry
    name = workspace.dataset_name(dataset)
    plan = find_plan(workspace, name, plans_name)
    chosen_configuration = find_configuration(plan, configuration)
    if chosen_configuration.previous_stage is not None:
        raise UsageError(
            f"configuration {configuration} takes the predictions of {chosen_configuration.previous_stage} as input; "
            "only configurations without a previous stage can be trained"
        )
    description = _read_description(workspace, name)
    torch_device = resolve_device(device)
    resolve_precision(precision, torch_device)  # a mistake in it is told before anything is moved
    chosen = choose_trainer(project.kernel, plan, configuration, name=trainer, overrides=overrides, epochs=epochs)
    trainer_part = folder_name(registry, chosen.provided.qualified_name, chosen_configuration.architecture.name)
    trained = TrainedFold(workspace.fold_folder(name, trainer_part, plan.plans_name, configuration, fold), fold)
    state = read_state(trained) if continue_ else FoldState()
    continued: Mapping[str, Any] = state.checkpoint.extension if state.checkpoint else {}
    if "trainer" in continued:
        chosen = choose_trainer(
            project.kernel,
            plan,
            configuration,
            name=trainer,
            overrides=overrides,
            epochs=epochs,
            continued=continued["trainer"],
        )
    if precision == "auto" and continued.get("device") == torch_device.type:
        precision = continued["precision"]
    store = open_store(project, name, chosen_configuration)
    split = find_split(project, name, case_names(workspace, dataset, store), fold)
    trained_already = state.trained(getattr(chosen.trainer, "epochs", None))
    if not (state.validated and trained_already):
        settings = preprocessing_settings(plan, chosen_configuration, description, registry)
        require_cases(store, split, plan, chosen_configuration, settings)
    if state.checkpoint is not None and not trained_already:
        _require_same(state.checkpoint, plan, chosen_configuration, split)
    return FoldWork(
        plan=plan,
        configuration=chosen_configuration,
        dataset=description,
        split=split,
        store=store,
        chosen=chosen,
        trained=trained,
        state=state,
        device=torch_device,
        precision=resolve_precision(precision, torch_device),
        seed=continued.get("seed", DEFAULT_SEED) if seed is None else seed,
    )


def _read_description(workspace: Workspace, dataset: str) -> DatasetDescription:
    """dataset.json as the data were preprocessed with it, else the raw data set's."""
    file = workspace.preprocessed_folder(dataset) / "dataset.json"
    if not file.is_file():
        file = workspace.raw_folder(dataset) / "dataset.json"
    return parse_description(read_json(file), dataset, file)


def _require_same(checkpoint: Checkpoint, plan: Plan, configuration: Configuration, split: Split) -> None:
    """Refuse to go on with a training whose plan or cases have changed: the result would belong to neither."""
    then = decode_plan(checkpoint.plans, checkpoint.path).configurations.get(configuration.name)
    now = decode_plan(encode_plan(plan), checkpoint.path).configurations[configuration.name]
    decisive = {f.name for f in fields(now) if f.compare} - {"inherits_from", "next_stage", "extra"}
    changed = [name for name in sorted(decisive) if then is None or getattr(then, name) != getattr(now, name)]
    if checkpoint.extension.get("split", value_hash(asdict(split))) != value_hash(asdict(split)):
        changed.append("cases of the fold")
    if changed:
        raise DataError(
            f"{checkpoint.path}: since this training began, its {plan.plans_name} or splits have changed "
            f"({', '.join(changed)}). Restore them, or train anew without --continue"
        )
