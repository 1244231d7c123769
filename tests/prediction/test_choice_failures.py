"""Predicting with a choice: a case that fails at any step is told, and the others are finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from segplug.errors import DataError
from segplug.model import Choice
from segplug.protocols import PredictionSettings
from segplug.runtime.project import Project
from segplug.stages import predict_choice as stage
from segplug.stages.predict_choice import predict_choice

FAST = PredictionSettings(device="cpu", precision="fp32")
Make = Callable[..., Path]


@pytest.fixture
def images(tmp_path: Path, make_image: Make) -> Path:
    for seed, case in enumerate("abc"):
        make_image(tmp_path / "in" / f"{case}_0000.nii.gz", (9, 12, 14), seed=seed)
    return tmp_path / "in"


@pytest.fixture
def choice(tmp_path: Path, make_model: Make) -> Choice:
    """Two models, and the largest component of label 1."""
    name = "remove_all_but_largest_component_from_segmentation"
    decision = {"postprocessing_fns": [name], "postprocessing_kwargs": [{"labels_or_regions": 1}]}
    file = tmp_path / "postprocessing.json"
    file.write_text(json.dumps(decision))
    return Choice("Dataset001_Test", (make_model("one"), make_model("two", features=6)), (0,), 0.8, 0.8, file)


def written(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.nii.gz"))


def test_a_case_that_cannot_be_averaged(
    project: Project, images: Path, choice: Choice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    predict_choice(project, images, out, choice, settings=FAST)
    assert written(out) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    average = stage.ensemble_cases

    def damaged(project: Project, files: Mapping[str, Sequence[Path]], *rest: Any) -> Any:
        files["b"][1].write_bytes(b"half")
        return average(project, files, *rest)

    monkeypatch.setattr(stage, "ensemble_cases", damaged)
    with pytest.raises(DataError, match=rf"(?s)^1 of 3 cases not predicted; all others are in {out}:.* b: "):
        predict_choice(project, images, out, choice, settings=FAST)
    assert written(out) == ["a.nii.gz", "c.nii.gz"]  # what the run before wrote of b is no result of this one


def test_a_case_that_cannot_be_postprocessed(
    project: Project, images: Path, choice: Choice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = stage.read_labels

    def failing(reader: Any, path: Path) -> Any:
        if path.name == "b.nii.gz":
            raise DataError(f"{path}: damaged")
        return read(reader, path)

    monkeypatch.setattr(stage, "read_labels", failing)
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"(?s)^1 of 3 cases not predicted.*\n  b: .*b\.nii\.gz: damaged$"):
        predict_choice(project, images, out, choice, settings=FAST)
    assert written(out) == ["a.nii.gz", "c.nii.gz"]


def test_a_case_that_cannot_be_read_on_continuing(
    project: Project, images: Path, choice: Choice, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict_choice(project, images, out, choice, settings=FAST)
    (images / "a_0000.nii.gz").unlink()
    (images / "a_0000.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
    (images / "c_0000.nii.gz").rename(images / "c_0001.nii.gz")  # a channel is missing
    with pytest.raises(DataError, match=r"(?s)^2 of 3 cases not predicted.* a: "):
        predict_choice(project, images, out, choice, settings=FAST, continue_=True)
    assert "b.nii.gz" in written(out)
    assert "a.nii.gz" not in written(out)
