"""What the README shows: settings that are taken, commands that run, names that are plotted."""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from segplug_track.options import Options

from .conftest import Segplug
from .stores import events, mlflow_runs

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
TOML = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CONSOLE = [
    shlex.split(line.partition(" #")[0])[1:]
    for block in re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("text", TOML)
def test_settings_are_taken(text: str) -> None:
    Options.of(tomllib.loads(text)["options"]["track"])


def test_all_settings_are_shown_with_their_defaults() -> None:
    shown = tomllib.loads(TOML[-1])["options"]["track"]
    assert set(shown) == {field.name for field in fields(Options)}
    assert {name: shown[name] for name in ("experiment", "patience")} == {
        field.name: field.default for field in fields(Options) if field.name in ("experiment", "patience")
    }


def test_the_commands_run_and_the_names_are_there(segplug: Segplug, store: str) -> None:
    assert CONSOLE == [
        ["pip", "install", "segplug-track[tensorboard,mlflow]"],
        ["segplug", "train", "4", "3d_fullres", "0"],
        ["tensorboard", "--logdir", "results"],
        ["segplug", "track", "push"],
    ]
    track = tomllib.loads(TOML[0])["options"]["track"]
    uri = track["mlflow"].replace("/home/me", str(segplug.folder))
    segplug.options(f'mlflow = "{uri}"\npatience = 300')
    _, train, _, push = CONSOLE
    quick = ["2d" if word == "3d_fullres" else word for word in train[1:]]
    segplug(*quick, *segplug.training[4:], "--epochs", "1")
    assert uri == store
    assert "delivered: 1 runs, tensorboard, mlflow" in segplug(*push[1:]).stdout
    (run,) = mlflow_runs(uri)
    scalars = set(events(segplug.fold / "tracking").Tags()["scalars"])
    assert scalars == set(run.data.metrics)
    row = next(line for line in README.splitlines() if line.startswith("| each epoch"))
    for name in re.findall(r"`([\w/]+)`", row):
        if name not in ("extra/NAME",):
            assert name.replace("CLASS", "Anterior") in scalars
    for name in ("validation_mean/Dice", "validation_Dice/Anterior", "validation_cases"):
        assert name in scalars
    tags = events(segplug.fold / "tracking").Tags()
    assert {"settings", "plugins", "plans"} <= set(tags["tensors"])
    assert tags["images"] == ["progress"]
