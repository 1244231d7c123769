"""A run in MLflow, on its server or in its database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug_track.journal import Entry
from segplug_track.options import Options
from segplug_track.scalars import plain, scalars
from segplug_track.state import State

if TYPE_CHECKING:
    from mlflow.entities import Metric

PARAMS = 100
"""That MLflow takes in one call; a value has 6000 characters at most."""

LENGTH = 6000

KEY = "segplug.run"
"""The tag with the journal's key, by which a run is found again."""

MODEL_FILES = ("plans.json", "dataset.json", "dataset_fingerprint.json")


class MlflowRun:
    """Implements `segplug_track.deliver.Destination`.

    Whatever comes again is there once: values are looked for before they are logged, until one is new.

    Args:
        folder: `tracking`, in the run's own folder.
        key: of the journal.
        state: what it was told before.
    """

    def __init__(self, options: Options, folder: Path, key: str, state: State) -> None:
        from mlflow import MlflowClient

        self._folder = folder.parent.absolute()
        self._client = MlflowClient(tracking_uri=options.mlflow)
        self.delivered = state.delivered
        found = state.run or self._find(options, key)
        self._there: dict[str, set[tuple[int, int]]] | None = {} if found else None
        if found:
            self._require_active(found)
        self.run = found or self._create(options, key)

    def tell(self, entry: Entry) -> None:
        """Tell one entry; it is in the store then."""
        kind = entry["kind"]
        metrics = self._new_metrics(entry)
        if metrics:
            self._client.log_batch(self.run, metrics=metrics)
        if kind == "start":
            self._begin(entry)
        elif kind == "evaluated":
            self._keep([self._folder / entry["place"] / "summary.json"], entry["place"] or None)
            if not entry["place"]:
                self._tag("segplug.kind", "evaluation")
        elif kind == "chosen":
            self._tag("segplug.kind", "choice")
            self._params({name: entry[name] for name in ("dataset", "members", "folds")}, "chosen_again")
            self._client.log_dict(self.run, {name: entry[name] for name in _CHOICE}, "choice.json")
        elif kind == "end":
            self._keep_pictures()
            if entry["error"]:
                self._tag("segplug.error", entry["error"])

    def close(self, ending: str) -> None:
        """Say how the run ended."""
        if ending == "killed":
            self._keep_pictures()
        self._client.set_terminated(self.run, ending.upper())

    def _find(self, options: Options, key: str) -> str:
        """The run of a process that was killed before it could write down the id, or whose state was lost."""
        experiment = self._client.get_experiment_by_name(options.experiment)
        if experiment is None or experiment.lifecycle_stage != "active":
            return ""
        found = self._client.search_runs([experiment.experiment_id], filter_string=f"tags.`{KEY}` = '{key}'")
        return str(found[0].info.run_id) if found else ""

    def _require_active(self, run: str) -> None:
        if self._client.get_run(run).info.lifecycle_stage != "active":
            raise ValueError(f"run {run} was deleted; restore it, or remove tracking/mlflow.json for a new one")

    def _create(self, options: Options, key: str) -> str:
        experiment = self._client.get_experiment_by_name(options.experiment)
        if experiment is None:
            made = self._client.create_experiment(options.experiment, artifact_location=options.artifact_location)
        elif experiment.lifecycle_stage != "active":
            raise ValueError(f"experiment {options.experiment!r} was deleted; restore it, or name another one")
        else:
            made = experiment.experiment_id
        name = "/".join(self._folder.parts[-3:])
        tags = {KEY: key, "segplug.folder": str(self._folder), "mlflow.source.name": "segplug"}
        return str(self._client.create_run(made, run_name=name, tags=tags).info.run_id)

    def _new_metrics(self, entry: Entry) -> list[Metric]:
        from mlflow.entities import Metric

        time, step = int(entry["time"] * 1000), entry["step"]
        values = scalars(entry)
        if self._there is None or not values:
            return [Metric(name, value, time, step) for name, value in values.items()]
        for name in values.keys() - self._there.keys():
            history = self._client.get_metric_history(self.run, name)
            self._there[name] = {(metric.step, metric.timestamp) for metric in history}
        missing = [name for name in values if (step, time) not in self._there[name]]
        if missing:
            self._there = None
        return [Metric(name, values[name], time, step) for name in missing]

    def _begin(self, entry: Entry) -> None:
        self._client.update_run(self.run, status="RUNNING")
        self._params(entry["params"], f"after_{entry['epochs_done']}_epochs")
        tags = {"segplug.kind": "training", "segplug.fingerprint": entry["fingerprint"]}
        tags |= {f"segplug.version.{name}": version for name, version in entry["versions"].items()}
        plugins = {each["distribution"]: each["version"] for each in entry["provenance"] if "distribution" in each}
        tags |= {f"segplug.version.{name}": version for name, version in plugins.items()}
        for name, value in tags.items():
            self._tag(name, value)
        self._keep(self._folder.parent / name for name in MODEL_FILES)
        self._client.log_dict(self.run, {"components": entry["provenance"]}, "provenance.json")
        self._client.log_dict(self.run, entry["split"], "split.json")

    def _params(self, values: Entry, when: str) -> None:
        """Params cannot be changed: those that a continued training has otherwise become tags."""
        from mlflow.entities import Param

        known = self._client.get_run(self.run).data.params
        texts = {".".join(map(plain, name.split("."))): _text(value) for name, value in values.items()}
        new = [Param(name, text) for name, text in texts.items() if name not in known]
        for some in _parts(new, PARAMS):
            self._client.log_batch(self.run, params=some)
        for name, text in texts.items():
            if name in known and known[name] != text:
                self._tag(f"segplug.{when}.{name}", text)

    def _tag(self, name: str, value: str) -> None:
        self._client.set_tag(self.run, name, value[:LENGTH])

    def _keep_pictures(self) -> None:
        self._keep([self._folder / "progress.png", *sorted(self._folder.glob("training_log_*.txt"))])

    def _keep(self, files: Iterable[Path], place: str | None = None) -> None:
        """Log those that are there."""
        for file in files:
            if file.is_file():
                self._client.log_artifact(self.run, str(file), place)


_CHOICE = ("dataset", "members", "folds", "mean_dice", "postprocessed_dice", "scores")


def _parts(values: list[Any], size: int) -> Iterator[list[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:LENGTH]
