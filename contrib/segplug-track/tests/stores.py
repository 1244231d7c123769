"""What the real libraries read of what was tracked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def mlflow_runs(uri: str, experiment: str = "segplug") -> list[Run]:
    """All runs of an experiment."""
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def mlflow_steps(uri: str, run: Run, name: str) -> list[int]:
    """Steps of a metric, as they were logged."""
    history = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, name)
    return sorted(metric.step for metric in history)


def mlflow_artifacts(uri: str, run: Run) -> set[str]:
    """Paths of a run's files."""
    client = MlflowClient(tracking_uri=uri)

    def below(path: str | None) -> list[str]:
        found = client.list_artifacts(run.info.run_id, path)
        return [name for each in found for name in (below(each.path) if each.is_dir else [each.path])]

    return set(below(None))


def events(tracking: Path) -> Any:
    """TensorBoard's own reader on the event files of a folder `tracking`."""
    read = EventAccumulator(str(tracking / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    read.Reload()
    return read


def event_steps(tracking: Path, name: str) -> list[int]:
    """Steps of a scalar, in the order of the files."""
    return [event.step for event in events(tracking).Scalars(name)]
