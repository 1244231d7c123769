"""Chains of configurations: which one a configuration builds on, which ones build on it, and what goes between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segplug.errors import DataError, UsageError
from segplug.model import Configuration, Plan, Split
from segplug.protocols import Store
from segplug.runtime.planned import find_configuration
from segplug.runtime.preprocessed_cases import open_store
from segplug.runtime.project import Project
from segplug.runtime.splits import ALL, read_splits
from segplug.runtime.stage_predictions import StagePredictions
from segplug.runtime.train_command import train_command
from segplug.runtime.trainer_choice import choose_trainer, folder_name


@dataclass(frozen=True)
class NextStage:
    """A configuration that wants what another one predicts, and where that is kept."""

    configuration: Configuration
    store: Store
    predictions: StagePredictions

    def waiting(self, cases: Iterable[str]) -> list[str]:
        """The cases that are preprocessed for it and of which there is no prediction that fits."""
        there = [c for c in cases if self.store.made_from(c) is not None]
        return [c for c in there if not self.predictions.fits(c, self.store.open(c).shape)]

    def wanted(self, cases: Iterable[str], fold: int | str) -> list[str]:
        """The cases that are preprocessed for it and whose prediction by a fold is wanted.

        Fold `all` has trained on them: its predictions are better than those of new cases will be, so they do not
        replace those of a fold which has not. nnU-Net replaces them.
        """
        there = [c for c in cases if self.store.made_from(c) is not None]
        return [c for c in there if fold != ALL or c in self.waiting([c]) or self.predictions.fold(c) == ALL]


def next_stages(project: Project, plan: Plan, configuration: Configuration, model_folder: Path) -> list[NextStage]:
    """The configurations of a plan that build on one, whichever of the two says so.

    Raises:
        UsageError: the plan has no configuration of a name.
    """
    building = [c.name for c in plan.configurations.values() if c.previous_stage == configuration.name]
    found = [find_configuration(plan, name) for name in dict.fromkeys((*configuration.next_stage, *building))]
    return [
        NextStage(c, open_store(project, plan.dataset_name, c), StagePredictions.of(model_folder, c.name))
        for c in found
    ]


def previous_predictions(
    project: Project,
    plan: Plan,
    configuration: Configuration,
    trainer: str | None,
    overrides: Sequence[str] = (),
    *,
    recorded: str | None = None,
) -> StagePredictions | None:
    """What the previous stage, trained by the same trainer, predicted for a configuration; None without a cascade.

    That of the same settings, if there is one; else that of the trainer's own. A training that is continued keeps to
    the one it began with.

    Args:
        trainer: name of the trainer; None for the plan's, or the default.
        overrides: settings of the trainer, some of which decide the name of a model's folder.
        recorded: name of the model folder that the training began with.

    Raises:
        UsageError: the plan has no such configuration, or there is no such trainer.
    """
    if configuration.previous_stage is None:
        return None
    previous = find_configuration(plan, configuration.previous_stage)

    def made_by(settings: Sequence[str]) -> Path:
        registry = project.kernel.registry
        chosen = choose_trainer(project.kernel, plan, previous.name, name=trainer, overrides=settings)
        part = folder_name(registry, chosen.provided.qualified_name, previous.architecture.name, chosen.trainer)
        return project.workspace.model_folder(plan.dataset_name, part, plan.plans_name, previous.name)

    usual = made_by(())
    same = usual
    with suppress(UsageError):  # its recipe may name another trainer, without these settings
        same = made_by(overrides)
    began = [usual.with_name(recorded)] if recorded else []
    found = [StagePredictions.of(folder, configuration.name) for folder in (*began, same, usual)]
    return next((predictions for predictions in found if predictions.folder.is_dir()), found[0])


def in_order(plan: Plan, wanted: Sequence[str]) -> list[str]:
    """Configurations with all that they build on, the latter first.

    Raises:
        UsageError: the plan has no configuration of a name.
        DataError: configurations build on each other in a circle.
    """
    done: list[str] = []

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise DataError(f"{plan.plans_name}: previous_stage leads in a circle: {' -> '.join((*above, name))}")
        previous = find_configuration(plan, name).previous_stage
        if previous is not None:
            add(previous, (*above, name))
        if name not in done:
            done.append(name)

    for name in wanted:
        add(name, ())
    return done


def require_predictions(
    project: Project,
    plan: Plan,
    configuration: Configuration,
    predictions: StagePredictions,
    store: Store,
    split: Split,
) -> None:
    """Refuse to train on cases that the previous stage did not predict, or predicted for another shape.

    Raises:
        DataError: naming the cases, and the commands that predict them.
    """
    cases = list(dict.fromkeys((*split.train, *split.val)))
    missing = [case for case in cases if predictions.find(case) is None]
    wrong = [c for c in cases if c not in missing and not predictions.fits(c, store.open(c).shape)]
    if not missing and not wrong:
        return
    name, previous = plan.dataset_name, configuration.previous_stage
    where = f"{name}, configuration {configuration.name}: {predictions.folder}"
    what = (
        f"has no predictions of {previous} for"
        if missing
        else f"has damaged predictions of {previous}, or of another shape, for"
    )
    told = missing or wrong
    listed = ", ".join(told[:10]) + (f" and {len(told) - 10} more" if len(told) > 10 else "")
    file = project.workspace.splits_file(name)
    splits = read_splits(file) if file.is_file() else []
    folds = [str(number) for number, fold in enumerate(splits) if not set(told).isdisjoint(fold.val)]
    beyond = set(told).difference(*(fold.val for fold in splits))
    untrained = (*folds, *([ALL] if beyond else []))
    commands = [train_command(project.kernel, predictions.model_folder, fold) for fold in untrained]
    raise DataError(
        f"{where} {what} {len(told)} cases of the fold: {listed}. The validation of {previous} writes them. Run: "
        + "; ".join(commands)
    )
