"""Runs with plugins installed: what they do, what is recorded of them, and what happens when they are gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segplug.testing import Phantom, write_phantom_dataset

NAME = "Dataset900_Plugins"
PLANS = "compactPlans"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a small CT phantom."""
    folder = tmp_path_factory.mktemp("project")
    write_phantom_dataset(
        folder / "raw" / NAME, Phantom(shape=(6, 40, 40), channels=("CT",), classes=1), cases=5, test_cases=1, seed=3
    )
    (folder / "segplug.toml").write_text(
        '[paths]\nraw = "raw"\npreprocessed = "preprocessed"\nresults = "results"\n'
        '[defaults]\nworkers = 0\ndevice = "cpu"\n'
    )
    return folder


@pytest.fixture(scope="module")
def with_plugins(install: Callable[..., Any]) -> Any:
    return install("segplug-replacing", "segplug-listener")


@pytest.fixture(scope="module")
def trained(folder: Path, with_plugins: Any) -> Path:
    """A model that was trained with the plugins; its folder."""
    few = ["--set", "trainer.iterations_per_epoch=2", "--set", "trainer.val_iterations_per_epoch=1", "--epochs", "1"]
    for command in (
        ["fingerprint", "900"],
        ["plan", "900", "--planner", "compact", "-p", PLANS],
        ["preprocess", "900", "-p", PLANS, "-c", "2d"],
        ["train", "900", "2d", "0", "-p", PLANS, "--set", "trainer.loss.power=2.0", *few],
    ):
        done = with_plugins.segplug(*command, cwd=folder)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert "the built-in 'dice_ce' of the losses is replaced by 'dice_ce' of plugin 'replacing'" in done.stderr
        assert done.stderr.count("is replaced by") == 2
    (model,) = (folder / "results" / NAME).iterdir()
    return model


def predict(environment: Any, folder: Path, model: Path, output: str, *options: str) -> Any:
    images = folder / "raw" / NAME / "imagesTs"
    return environment.segplug("predict", "-i", images, "-o", folder / output, "-m", model, *options, cwd=folder)


@pytest.mark.slow
def test_plans_and_checkpoints_record_the_plugins(folder: Path, trained: Path) -> None:
    plan = json.loads((folder / "preprocessed" / NAME / f"{PLANS}.json").read_text())
    recorded = {(entry["kind"], entry["name"]): entry for entry in plan["segplug"]["provenance"]}
    replacing = {"plugin": "replacing", "distribution": "segplug-replacing", "version": "1.2"}
    assert recorded["normalizers", "CTNormalization"].items() > replacing.items()
    assert {entry["plugin"] for key, entry in recorded.items() if key[0] != "normalizers"} == {"builtin"}

    from segplug.runtime.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(trained / "fold_0" / "checkpoint_final.pth")
    recorded = {(entry["kind"], entry["name"]): entry for entry in checkpoint.extension["provenance"]}
    assert recorded["losses", "dice_ce"].items() > replacing.items()
    assert recorded["normalizers", "CTNormalization"].items() > replacing.items()
    assert ("architectures", plan["configurations"]["2d"]["architecture"]["network_class_name"]) in recorded


@pytest.mark.slow
def test_the_listener_heard_every_stage(folder: Path, trained: Path) -> None:
    heard = (folder / "events.txt").read_text().splitlines()
    for stage in ("fingerprint", "plan", "preprocess", "train"):
        assert [line.split()[0] for line in heard if line.split()[1] == stage] == ["started", "finished"], heard
    assert not [line for line in heard if line.startswith("finished") and not line.endswith(" well")]


@pytest.mark.slow
def test_prediction_with_the_same_plugins(folder: Path, trained: Path, with_plugins: Any) -> None:
    done = predict(with_plugins, folder, trained, "same")
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "same").glob("*.nii.gz"))) == 1


@pytest.mark.slow
def test_prediction_without_them_says_what_is_missing(
    folder: Path, trained: Path, with_plugins: Any, install: Callable[..., Any]
) -> None:
    bare = install()
    done = predict(bare, folder, trained, "refused")
    assert done.returncode == 1
    assert "normalizers: 'CTNormalization' was provided by plugin 'replacing' (segplug-replacing 1.2)" in done.stderr
    assert "now it is 'builtin'" in done.stderr
    assert "--allow-provider-change" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((folder / "refused").glob("*.nii.gz"))
    # the loss is not needed for predicting: nothing is said of it
    assert "losses" not in done.stderr
    allowed = predict(bare, folder, trained, "allowed", "--allow-provider-change")
    assert allowed.returncode == 0, allowed.stderr
    assert len(list((folder / "allowed").glob("*.nii.gz"))) == 1


@pytest.mark.slow
def test_an_option_that_the_plugin_does_not_take(folder: Path, trained: Path, with_plugins: Any) -> None:
    done = with_plugins.segplug(
        "train", "900", "2d", "1", "-p", PLANS, "--set", "trainer.loss.gamma=2", "--epochs", "1", cwd=folder
    )
    assert done.returncode in (1, 2)
    assert "losses: replacing:dice_ce cannot be made from the options {'gamma': 2}" in done.stderr
    assert "It takes: power" in done.stderr
    assert "Traceback" not in done.stderr
