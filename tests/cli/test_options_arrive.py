"""Each option of a command reaches the function that does its work, and no other one."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from segplug.cli.main import app
from segplug.stages.validation_probabilities import Computing


class Call(NamedTuple):
    """What is called, MODULE:FUNCTION of segplug.stages, with what; `workers` are the project's."""

    function: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    workers: int = 0


A, B = Path("a"), Path("b")
JSON, PLANS = Path("dataset.json"), Path("plans.json")

CALLS = {
    "fingerprint 4 --workers 3 --overwrite": Call("fingerprint:fingerprint", ("4",), {"overwrite": True}, 3),
    "plan 4 --planner resenc_l --memory-gb 24 --spacing 3,1,1 --plans-name P": Call(
        "plan:plan",
        ("4",),
        {"planner": "resenc_l", "memory_gb": 24.0, "spacing": (3.0, 1.0, 1.0), "plans_name": "P"},
    ),
    "plan 4 --from-dataset 5 --from-plans Q --plans-name P": Call(
        "move_plans:move_plans", ("5", "4"), {"from_plans": "Q", "plans_name": "P"}
    ),
    "preprocess 4 --configuration 2d -c 3d_fullres --plans-name P --workers 3": Call(
        "preprocess:preprocess", ("4",), {"configurations": ["2d", "3d_fullres"], "plans_name": "P"}, 3
    ),
    "prepare 4 --configuration 2d --planner resenc_l --memory-gb 24 --plans-name P --workers 3": Call(
        "prepare:prepare",
        ("4",),
        {"planner": "resenc_l", "memory_gb": 24.0, "plans_name": "P", "configurations": ["2d"]},
        3,
    ),
    "select 4 --configuration 2d -c 3d_fullres --plans-name P --trainer T --fold 0,1 --no-ensembles "
    "--postprocessor none --device cpu --precision fp32 --workers 3": Call(
        "select:select",
        ("4",),
        {
            "configurations": ["2d", "3d_fullres"],
            "plans_names": ["P"],
            "trainers": ["T"],
            "folds": [0, 1],
            "ensembles": False,
            "postprocessor": "none",
            "computing": Computing("cpu", "fp32"),
        },
        3,
    ),
    "ensemble --input a -i b --output c --save-probabilities --continue --dataset-json dataset.json "
    "--plans plans.json --workers 3": Call(
        "ensemble:ensemble_folders",
        ([A, B], Path("c")),
        {"save_probabilities": True, "continue_": True, "dataset_json": JSON, "plans": PLANS},
        3,
    ),
    "postprocess fit --input a --reference b --postprocessor none --dataset-json dataset.json --plans plans.json "
    "--workers 3": Call(
        "postprocess:fit_postprocessing",
        (A, B),
        {"postprocessor": "none", "dataset_json": JSON, "plans": PLANS},
        3,
    ),
    "postprocess apply --input a --output b --decision c --continue --dataset-json dataset.json --plans plans.json "
    "--workers 3": Call(
        "postprocess:apply_postprocessing",
        (A, B, Path("c")),
        {"dataset_json": JSON, "plans": PLANS, "continue_": True},
        3,
    ),
    "model export 4 --output a --configuration 2d --plans-name P --trainer T --fold 0 -f all --checkpoint best "
    "--predictions --for-inference": Call(
        "export_model:export_model",
        ("4", A),
        {
            "configurations": ["2d"],
            "plans_name": "P",
            "trainer": "T",
            "folds": [0, "all"],
            "checkpoints": ["best"],
            "predictions": True,
            "for_inference": True,
        },
    ),
    "dataset overlay 4 --output a --predictions b --channel 1 --slices 3 --workers 3": Call(
        "overlays:overlays", ("4", A), {"predictions": B, "channel": 1, "slices": 3}, 3
    ),
    "model import https://example.org/a.zip --sha256 00 --max-size 2 --overwrite": Call(
        "import_model:import_model",
        ("https://example.org/a.zip",),
        {"sha256": "00", "max_gb": 2.0, "overwrite": True},
    ),
}


@pytest.mark.parametrize("line", CALLS)
def test_every_option_arrives(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = CALLS[line]
    module, _, name = call.function.partition(":")
    seen: list[Call] = []

    def stand_in(project: Any, *arguments: Any, **options: Any) -> None:
        seen.append(Call(call.function, arguments, options, project.workers))
        raise typer.Exit

    monkeypatch.setattr(importlib.import_module(f"segplug.stages.{module}"), name, stand_in)
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 0, done.output
    assert seen == [call]


def test_options_of_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from segplug.stages import train

    seen: dict[str, Any] = {}

    def stand_in(project: Any, *arguments: Any, **options: Any) -> None:
        seen.update(options, arguments=arguments, workers=project.workers)
        raise typer.Exit

    monkeypatch.setattr(train, "train", stand_in)
    options = ["--plans-name", "P", "-t", "T", "--set", "trainer.lr=1e-3", "--epochs", "3"]
    options += ["--continue", "--allow-provider-change"]
    options += ["--pretrained", "a", "--save-probabilities", "--device", "cpu", "--precision", "bf16", "--seed", "7"]
    done = CliRunner().invoke(app, ["train", "4", "3d_fullres", "all", *options, "--workers", "3"])
    assert done.exit_code == 0, done.output
    assert not seen.pop("processes").several
    assert seen == {
        "arguments": ("4", "3d_fullres", "all"),
        "workers": 3,
        "plans_name": "P",
        "trainer": "T",
        "overrides": ["trainer.lr=1e-3"],
        "epochs": 3,
        "continue_": True,
        "allow_provider_change": True,
        "pretrained": A,
        "save_probabilities": True,
        "device": "cpu",
        "precision": "bf16",
        "seed": 7,
    }


@pytest.mark.parametrize("option", ["--num-gpus", "--processes"])
def test_several_processes_are_started(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    started: list[tuple[list[str], int]] = []
    monkeypatch.setattr("segplug.cli.train.launch", lambda arguments, count: started.append((arguments, count)))
    monkeypatch.setattr("sys.argv", ["segplug", "train", "4", "2d", "0", option, "2"])
    done = CliRunner().invoke(app, ["train", "4", "2d", "0", option, "2"])
    assert done.exit_code == 0, done.output
    ((arguments, count),) = started
    assert count == 2
    assert "train" in arguments


def test_options_of_evaluate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from segplug.stages import evaluate

    seen: list[tuple[tuple[Any, ...], dict[str, Any], int]] = []

    def stand_in(project: Any, *arguments: Any, **options: Any) -> None:
        seen.append((arguments, options, project.workers))
        raise typer.Exit

    monkeypatch.setattr(evaluate, "evaluate", stand_in)
    description = {"channel_names": {"0": "x"}, "labels": {"background": 0, "a": 1}, "numTraining": 1}
    (tmp_path / "other.json").write_text(json.dumps({**description, "file_ending": ".nrrd"}))
    rest = ["--output", "c", "--metric", "hd95", "--file-ending", ".mha", "--allow-missing", "--workers", "3"]
    for choice in (["--dataset-json", str(tmp_path / "other.json")], ["--labels", "1,2+3", "--ignore", "4"]):
        done = CliRunner().invoke(app, ["evaluate", "a", "b", *choice, *rest])
        assert done.exit_code == 0, done.output
    (first, options, workers), (second, *_) = seen
    assert first[:2] == second[:2] == (A, B)
    assert first[2].labels.values == {"background": 0, "a": 1}
    assert second[2].values == {"background": 0, "1": 1, "2+3": (2, 3), "ignore": 4}
    wanted = {"metrics": ["hd95"], "allow_missing": True, "file_ending": ".mha", "output": Path("c")}
    assert (options, workers) == (wanted, 3)
