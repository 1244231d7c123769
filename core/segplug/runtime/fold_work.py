"""What one training is about, found out before anything is written."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import segplug
from segplug.errors import DataError, UsageError
from segplug.kernel.provenance import require_same
from segplug.model import Configuration, DatasetDescription, Plan, Split, TrainedFold
from segplug.protocols import Store
from segplug.runtime.adapted_network import adapted_plan
from segplug.runtime.cascade import NextStage, next_stages, previous_predictions, require_predictions
from segplug.runtime.case_preprocessing import preprocessing_settings
from segplug.runtime.checkpoint import Checkpoint
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.device import resolve_device, resolve_precision
from segplug.runtime.files import read_json, value_hash
from segplug.runtime.fold_folder import FoldState, read_state
from segplug.runtime.plan_codec import decode_plan, encode_plan
from segplug.runtime.plan_components import knowing, plain_name, require_installed
from segplug.runtime.planned import find_configuration, find_plan
from segplug.runtime.preprocessed_cases import case_names, open_store, require_cases
from segplug.runtime.processes import ALONE, Processes
from segplug.runtime.project import Project
from segplug.runtime.splits import find_split, read_splits
from segplug.runtime.stage_predictions import StagePredictions
from segplug.runtime.trainer_choice import ChosenTrainer, choose_trainer, folder_name
from segplug.runtime.workspace import Workspace

if TYPE_CHECKING:
    import torch

DEFAULT_SEED = 0
BEGIN_ANEW = (
    "go on with the others (segplug train --continue --allow-provider-change), or train anew (segplug train without "
    "--continue, which keeps what is there under another name)"
)
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class FoldWork:
    """What is to be trained, with what, and how far it has come.

    Args:
        previous: in a cascade, what the stage before predicted.
        next_stages: configurations that want this one's predictions.
    """

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
    previous: StagePredictions | None
    next_stages: Sequence[NextStage]

    @property
    def subject(self) -> str:
        return f"{self.dataset.name} {self.configuration.name} fold {self.trained.fold}"

    @property
    def epochs(self) -> int | None:
        return getattr(self.chosen.trainer, "epochs", None)

    @property
    def is_trained(self) -> bool:
        """Whether the training is over; validation may not be."""
        return self.state.trained(*self.chosen.ends)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        waiting = any(stage.waiting(self.split.val) for stage in self.next_stages)
        return self.is_trained and self.state.validated and not waiting

    @property
    def without_probabilities(self) -> list[str]:
        """The validation cases of which none are kept."""
        return [case for case in self.split.val if not (self.trained.validation_folder / f"{case}.npz").is_file()]

    @property
    def batch_size(self) -> int:
        """Samples per batch."""
        of_trainer: int | None = getattr(self.chosen.trainer, "batch_size", None)
        return of_trainer or self.configuration.batch_size

    @property
    def decisive(self) -> dict[str, Any]:
        """What several processes that train together must have found alike, by names for messages; JSON values."""
        return {
            "the version of segplug": segplug.__version__,
            "the data set": self.dataset.name,
            "the plan": value_hash(encode_plan(self.plan)),
            "the trainer": value_hash([self.chosen.provided.qualified_name, dict(self.chosen.settings)]),
            "the split": value_hash(asdict(self.split)),
            "the number of epochs done": self.state.epochs_done,
            "what is finished": [self.is_trained, self.complete],
            "the kind of device": self.device.type,
            "the precision": self.precision,
            "the seed": self.seed,
        }

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Hashes of what the plan does not decide: the fold's cases, and what the previous stage predicted."""
        found = {"split": value_hash(asdict(self.split))}
        if self.previous is not None:
            found["previous"] = value_hash(self.previous.state(sorted({*self.split.train, *self.split.val})))
        return found


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
    allow_provider_change: bool = False,
    processes: Processes = ALONE,
) -> FoldWork:
    """Find out what `segplug.stages.train.train` was asked for; arguments and errors as there."""
    workspace, registry = project.workspace, project.kernel.registry
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"--seed {seed}: expected a whole number from 0 to {LARGEST_SEED}")
    name = workspace.dataset_name(dataset)
    plan = find_plan(workspace, name, plans_name)
    chosen_configuration = find_configuration(plan, configuration)
    require_installed(registry, plan, [configuration], ("normalizers", "resamplers", "architectures"))
    description = _read_description(workspace, name)
    torch_device = resolve_device(device, processes)
    resolve_precision(precision, torch_device)  # a mistake in it is told before anything is moved
    with knowing(_recorded(workspace, plan, configuration, fold, trainer), registry, f"plan {plan.plans_name!r}"):
        chosen = choose_trainer(project.kernel, plan, configuration, name=trainer, overrides=overrides, epochs=epochs)
    architecture = chosen_configuration.architecture.name
    trainer_part = folder_name(registry, chosen.provided.qualified_name, architecture, chosen.trainer)
    trained = TrainedFold(workspace.fold_folder(name, trainer_part, plan.plans_name, configuration, fold), fold)
    state = read_state(trained) if continue_ else FoldState()
    continued: Mapping[str, Any] = state.checkpoint.extension if state.checkpoint else {}
    recorded = continued.get("provenance", ())
    if "trainer" in continued:
        with knowing(recorded, registry, str(trained.folder)):
            chosen = choose_trainer(
                project.kernel,
                plan,
                configuration,
                name=trainer,
                overrides=overrides,
                epochs=epochs,
                continued=continued["trainer"],
            )
    if state.checkpoint is not None and not state.trained(*chosen.ends):
        in_use = _in_use(recorded, chosen, architecture)
        training = f"{state.checkpoint.path}: this training"
        require_same(in_use, registry, training, allow_provider_change, BEGIN_ANEW)
    plan = adapted_plan(plan, configuration, chosen.trainer)
    chosen_configuration = plan.configurations[configuration]
    if precision == "auto" and continued.get("device") == torch_device.type:
        precision = continued["precision"]
    store = open_store(project, name, chosen_configuration)
    split = find_split(project, name, case_names(workspace, dataset, store), fold)
    planned = len(read_splits(workspace.splits_file(name))) if isinstance(fold, int) else 0
    if isinstance(fold, int) and fold >= planned:
        warnings.warn(
            f"fold {fold} is past those of {workspace.splits_file(name)} (0 to {planned - 1}): it gets a random split, "
            "80 % of the cases to train on, and is no part of a cross-validation",
            stacklevel=3,
        )
    previous = previous_predictions(
        project, plan, chosen_configuration, trainer, overrides, recorded=continued.get("previous_model")
    )
    work = FoldWork(
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
        previous=previous,
        next_stages=next_stages(project, plan, chosen_configuration, trained.model_folder),
    )
    if not work.complete:
        settings = preprocessing_settings(plan, chosen_configuration, description, registry)
        require_cases(store, split, plan, chosen_configuration, settings)
        if previous is not None:
            require_predictions(project, plan, chosen_configuration, previous, store, split)
    if state.checkpoint is not None and not work.is_trained:
        _require_same(work, state.checkpoint)
    return work


def _read_description(workspace: Workspace, dataset: str) -> DatasetDescription:
    """dataset.json as the data were preprocessed with it, else the raw data set's."""
    file = workspace.preprocessed_folder(dataset) / "dataset.json"
    if not file.is_file():
        file = workspace.raw_folder(dataset) / "dataset.json"
    return parse_description(read_json(file), dataset, file)


def _recorded(
    workspace: Workspace, plan: Plan, configuration: str, fold: int | str, trainer: str | None
) -> Sequence[Mapping[str, str]]:
    """What is recorded of plugins by the plan and, where a trainer is named, by what it trained here before."""
    if trainer is None:
        return plan.provenance
    folder = workspace.fold_folder(plan.dataset_name, plain_name(trainer), plan.plans_name, configuration, fold)
    before = read_state(TrainedFold(folder, fold)).checkpoint
    return [*plan.provenance, *(before.extension.get("provenance", ()) if before else ())]


def _in_use(recorded: Sequence[Mapping[str, Any]], chosen: ChosenTrainer, architecture: str) -> list[Mapping[str, Any]]:
    """What a checkpoint records of the components that its training would go on with."""
    named = dict.fromkeys(chosen.components)
    if not any(kind == "architectures" for kind, _ in named):
        named["architectures", architecture] = None
    found = [entry for entry in recorded if (entry.get("kind"), entry.get("name")) in named]
    # the user may have named the trainer otherwise then: by an alias, or as plugin:name
    same = [e for e in recorded if e.get("kind") == "trainers" and plain_name(e.get("name")) in chosen.provided.names]
    return [*found, *({**entry, "name": chosen.provided.asked} for entry in same if entry not in found)]


def _require_same(work: FoldWork, checkpoint: Checkpoint) -> None:
    """Refuse to go on with a training whose plan or cases have changed: the result would belong to neither."""
    then = decode_plan(checkpoint.plans, checkpoint.path).configurations.get(work.configuration.name)
    now = decode_plan(encode_plan(work.plan), checkpoint.path).configurations[work.configuration.name]
    decisive = {f.name for f in fields(now) if f.compare} - {"inherits_from", "next_stage", "extra"}
    changed = [name for name in sorted(decisive) if then is None or getattr(then, name) != getattr(now, name)]
    called = {"split": "cases of the fold", "previous": f"predictions of {work.configuration.previous_stage}"}
    changed += [called[k] for k, state in work.inputs.items() if checkpoint.extension.get(k, state) != state]
    if changed:
        raise DataError(
            f"{checkpoint.path}: since this training began, its {work.plan.plans_name} or inputs have changed "
            f"({', '.join(changed)}). Restore them, or train anew without --continue"
        )
