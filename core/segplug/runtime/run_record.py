"""What `run` remembers between calls, so that it keeps what is finished and unchanged and makes anew what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from segplug.errors import DataError
from segplug.model import LabelSet, Plan, Split, TrainedFold
from segplug.protocols import Store
from segplug.runtime.files import read_json, value_hash, write_json
from segplug.runtime.stage_predictions import StagePredictions

FILE_NAME = ".segplug-run.json"
"""In the data set's preprocessed folder. The dot keeps it from being taken for plans."""

FOLD_FILE = "made_from.json"
"""In a fold's folder: what `run` trained it from."""


class RunRecord:
    """Notes about the data set and its plans, on disk as soon as they are made.

    Args:
        folder: the data set's preprocessed folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE_NAME
        try:
            self._notes: dict[str, Any] = dict(read_json(self._file)) if self._file.is_file() else {}
        except (DataError, TypeError, ValueError):
            self._notes = {}  # damaged: nothing is known, everything is looked at again

    @property
    def verified(self) -> str | None:
        """State of the raw data when they were last found to be in order."""
        found = self._notes.get("verified")
        return found if isinstance(found, str) else None

    def note_verified(self, state: str) -> None:
        self._write({**self._notes, "verified": state})

    def planned(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """What was noted of the plan made for these wishes; empty if there is none."""
        found = self._notes.get("plans", {}).get(value_hash(asked), {})
        return found if isinstance(found, Mapping) else {}

    def note_planned(self, asked: Mapping[str, Any], **notes: Any) -> None:
        self._write({**self._notes, "plans": {**self._notes.get("plans", {}), value_hash(asked): notes}})

    def _write(self, notes: dict[str, Any]) -> None:
        self._notes = notes
        write_json(self._file, notes)


def fold_manifest(
    plan: Plan,
    labels: LabelSet,
    configuration: str,
    split: Split,
    store: Store,
    *,
    previous: StagePredictions | None = None,
    trainer: str | None,
    overrides: Sequence[str],
    epochs: int | None,
    seed: int | None,
) -> dict[str, str]:
    """What decides the outcome of a training: part -> hash. The parts are phrases for messages.

    A label's name decides nothing, nor which configurations build on this one.

    Args:
        previous: in a cascade, what the stage before predicted.
    """
    recipe = plan.recipe(configuration)
    cases = {case: store.made_from(case) for case in sorted({*split.train, *split.val})}
    earlier = {} if previous is None else {"the previous stage": value_hash(previous.state(list(cases)))}
    return {
        **earlier,
        "the plan": value_hash(asdict(replace(plan.configurations[configuration], next_stage=()))),
        "the training data": value_hash([cases, split.train, split.val]),
        "what the labels mean": value_hash(
            [list(labels.values.values()), labels.regions_class_order, labels.ignore_label]
        ),
        "the trainer's settings": value_hash(
            [None if recipe is None else asdict(recipe), trainer, list(overrides), epochs, seed]
        ),
    }


def what_changed(trained: TrainedFold, manifest: Mapping[str, str]) -> list[str]:
    """Parts in which a fold that `run` trained before differs from the manifest; empty if it is none of those."""
    file = trained.folder / FOLD_FILE
    if not file.is_file():
        return []
    try:
        before = read_json(file)
        return [part for part, state in manifest.items() if before.get(part) != state]
    except (DataError, AttributeError):
        return list(manifest)
