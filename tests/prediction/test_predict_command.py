"""The command: options, exit codes, what is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segplug.cli.main import main
from segplug.cli.predict import model_folder
from segplug.errors import UsageError
from segplug.protocols import PredictionSettings
from segplug.runtime.parts import Part
from segplug.runtime.workspace import Workspace

Make = Callable[..., Path]


def run(*arguments: Any) -> int:
    """Exit code of `segplug predict ...`."""
    try:
        main(["predict", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def images(tmp_path: Path, make_image: Make) -> Path:
    make_image(tmp_path / "in" / "case_0000.nii.gz", (9, 12, 14))
    return tmp_path / "in"


def test_by_model_folder(make_model: Make, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("-i", images, "-o", tmp_path / "out", "-m", make_model(folds=(0, 1)), "-f", 1, "--precision", "fp32")
    assert run(*arguments, "--continue") == 0
    assert "predicted 1 case, nothing to continue" in capsys.readouterr().err
    assert (tmp_path / "out" / "case.nii.gz").is_file()
    assert run(*arguments, "--continue") == 0
    assert "predicted 0 cases, 1 kept from before" in capsys.readouterr().err


def test_by_data_set(make_model: Make, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model("results/Dataset001_Test/nnUNetTrainer__plans__3d")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    assert run("-i", images, "-o", tmp_path / "out", "-d", 1, "-c", "3d", "-p", "plans", "-t", "nnUNetTrainer") == 0
    assert (tmp_path / "out" / "case.nii.gz").is_file()


def test_the_only_model_need_not_be_named(tmp_path: Path) -> None:
    """A network of a plugin is trained in a folder of another name than nnU-Net's trainer."""
    workspace = Workspace(tmp_path, tmp_path, tmp_path)

    def add(name: str) -> Path:
        (tmp_path / "Dataset001_Test" / name).mkdir(parents=True)
        return tmp_path / "Dataset001_Test" / name

    tiny = add("nnunet__tinyPlans__3d")
    add("nnunet__tinyPlans__2d")
    assert model_folder(workspace, "Dataset001_Test", None, None, "3d") == tiny
    assert model_folder(workspace, "Dataset001_Test", None, "tinyPlans", "3d") == tiny
    with pytest.raises(UsageError, match="nnunet__tinyPlans__3d"):
        model_folder(workspace, "Dataset001_Test", "nnUNetTrainer", None, "3d")
    short = add("short__tinyPlans__3d")
    with pytest.raises(UsageError, match=r"Name its plans \(-p\) and trainer \(-t\)"):
        model_folder(workspace, "Dataset001_Test", None, "tinyPlans", "3d")
    assert model_folder(workspace, "Dataset001_Test", "short", None, "3d") == short
    usual = add("nnUNetTrainer__otherPlans__3d")
    assert model_folder(workspace, "Dataset001_Test", None, None, "3d") == usual


def test_every_option_arrives(make_model: Make, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segplug.stages import predict

    seen: dict[str, Any] = {}

    def stand_in(project: Any, source: Path, target: Path, model: Path, **options: Any) -> predict.FolderPrediction:
        seen.update(options, model=model, workers=project.workers)
        return predict.FolderPrediction(target, (), ())

    monkeypatch.setattr(predict, "predict_folder", stand_in)
    options = ["-f", 0, "-f", "all", "--step-size", 0.7, "--no-mirroring", "--save-probabilities", "--device", "cpu"]
    options += [
        "--precision",
        "bf16",
        "--checkpoint",
        "best",
        "--workers",
        0,
        "--max-memory",
        3.5,
        "--predictor",
        "onnx",
        "--previous-stage",
        tmp_path,
        "--part",
        "2/3",
    ]
    assert (
        run("-i", images, "-o", tmp_path / "o", "-m", tmp_path, *options, "--allow-provider-change", "--continue") == 0
    )
    assert seen == {
        "model": tmp_path,
        "workers": 0,
        "folds": [0, "all"],
        "checkpoint": "best",
        "previous_stage": tmp_path,
        "keep_previous": None,
        "predictor": "onnx",
        "part": Part(2, 3),
        "continue_": True,
        "settings": PredictionSettings(0.7, False, "cpu", "bf16", True, 3.5, True),
    }


def test_wrong_usage(
    make_model: Make, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    make_model("results/Dataset001_Test/nnUNetTrainer__plans__3d")
    paths = ("-i", images, "-o", tmp_path / "out")
    model = tmp_path / "results/Dataset001_Test/nnUNetTrainer__plans__3d"
    for arguments, told in (
        ((), "say which model"),
        (("-m", model, "-d", 1), "say which model"),
        (("-d", 1), "needs -c CONFIGURATION"),
        (("-d", 1, "--choice", "--previous-stage", tmp_path), "by itself; leave --previous-stage out"),
        (("-d", 1, "--choice", "--keep-previous", tmp_path), "by itself; leave --keep-previous out"),
        (("-d", 1, "-c", "2d"), "There are: nnUNetTrainer__plans__3d"),
        (("-m", model, "-f", 3), "Folds there: 0 (final)"),
        (("-m", model, "--step-size", 1.5), "--step-size 1.5"),
        (("-m", model, "--max-memory", 0), "--max-memory 0"),
        (("-m", model, "--device", "toaster"), "--device toaster"),
        (("-m", model, "--precision", "fp8"), "--precision fp8"),
        (("-m", tmp_path / "none"), "no such model folder"),
    ):
        assert run(*paths, *arguments) == 2, arguments
        assert told in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*.nii.gz"))


def test_a_bad_case_ends_with_1_and_no_traceback(make_model: Make, images: Path, tmp_path: Path) -> None:
    (images / "damaged_0000.nii.gz").write_bytes((images / "case_0000.nii.gz").read_bytes()[:200])
    script = "from segplug.cli.main import main; main()"
    command = [sys.executable, "-c", script, "predict", "-i", images, "-o", tmp_path / "out", "-m", make_model()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if "damaged_0000.nii.gz" in line and "truncated" in line]
    assert len(told) == 1
    assert (tmp_path / "out" / "case.nii.gz").is_file()


@pytest.mark.parametrize("option", [("-c", "3d"), ("-p", "plans"), ("-t", "nnUNetTrainer")])
def test_a_model_folder_leaves_no_choice(
    make_model: Make, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    assert run("-i", images, "-o", tmp_path / "out", "-m", make_model(), *option) == 2
    assert "-m names the model by its folder" in capsys.readouterr().err
