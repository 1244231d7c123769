"""The table [options.track], and what listing plugins costs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from segplug_track.options import Options

from .conftest import Segplug

HEAVY = ("mlflow", "tensorboard", "torch", "filelock", "segplug_track.tracking", "segplug_track.deliver")


def test_defaults() -> None:
    assert Options().destinations == ("tensorboard",)  # it is installed here
    assert Options(tensorboard=False).destinations == ()
    assert Options(mlflow="https://server").destinations == ("tensorboard", "mlflow")


def test_artifacts_go_beside_the_database() -> None:
    assert Options(mlflow="sqlite:////data/mlflow.db").artifact_location == "/data/mlartifacts"
    assert Options(mlflow="sqlite:////data/mlflow.db", artifacts="/other").artifact_location == "/other"
    assert Options(mlflow="https://server").artifact_location is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mflow": "x"}, "no option mflow; there are: tensorboard, mlflow, experiment, artifacts, patience"),
        ({"mlflow": True}, "mlflow is True; expected a tracking URI"),
        ({"mlflow": ""}, "mlflow is ''"),
        ({"mlflow": "mlruns"}, "mlflow is 'mlruns', a relative path"),
        (
            {"mlflow": "sqlite:///mlflow.db"},
            "mlflow is 'sqlite:///mlflow.db', a relative path; expected a tracking URI such as",
        ),
        ({"tensorboard": "runs"}, "tensorboard is 'runs'; expected true or false"),
        ({"patience": -1}, "patience is -1"),
        ({"patience": True}, "patience is True; expected a number of seconds"),
        ({"patience": float("nan")}, "patience is nan"),
        ({"experiment": 3}, "experiment is 3; expected a name"),
    ],
)
def test_mistakes_are_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="^" + said.replace("(", r"\(")):
        Options.of(given)


@pytest.mark.parametrize("uri", ["sqlite:////data/mlflow.db", "https://server", "/data/mlruns", "file:///data/mlruns"])
def test_places_that_are_the_same_from_everywhere(uri: str) -> None:
    assert Options.of({"mlflow": uri, "patience": 5}) == Options(mlflow=uri, patience=5)


def test_a_mistake_in_the_settings_is_wrong_usage(segplug: Segplug) -> None:
    segplug.options("mlfow = true")
    done = segplug("train", "4", "2d", "0", code=2)
    assert "[options.track]" in done.stderr
    assert "no option mlfow" in done.stderr


def test_nothing_heavy_is_imported() -> None:
    """By whoever lists plugins, and before anything is tracked."""
    code = f"import segplug_track, sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_passes_the_checks(segplug: Segplug) -> None:
    segplug.options("")
    segplug("plugins", "check")
    rows = json.loads(segplug("plugins", "list", "--format", "json").stdout)
    (plugin,) = [row for row in rows if (row["kind"], row["name"]) == ("plugin", "track")]
    assert plugin["state"] == "active"
    assert "segplug_training_started" in plugin["summary"]
    assert [row["distribution"] for row in rows if (row["kind"], row["name"]) == ("command", "track")] == [
        "segplug-track"
    ]
