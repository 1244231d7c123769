"""Plans taken over from another data set: what changes, what is refused, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segplug.cli.main import main
from segplug.errors import DataError, UsageError
from segplug.runtime.project import Project
from segplug.stages import fingerprint as fingerprint_module
from segplug.stages.fingerprint import fingerprint
from segplug.stages.move_plans import move_plans
from segplug.stages.plan import plan
from segplug.stages.preprocess import preprocess
from segplug.testing import Phantom, write_phantom_dataset

TARGET = "Dataset502_Other"


@pytest.fixture
def source(project: Project, phantom: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A planned data set, and another one beside it of as many channels."""
    monkeypatch.setattr(fingerprint_module, "TOTAL_DRAWS", 1e4)
    fingerprint(project, phantom)
    plan(project, phantom)
    write(project, ("A", "B"))
    return phantom


def write(project: Project, channels: tuple[str, ...]) -> None:
    assert project.workspace.raw is not None
    look = Phantom((9, 20, 18), channels=channels, file_ending=".nrrd")
    write_phantom_dataset(project.workspace.raw / TARGET, look, cases=2)


def plans_of(project: Project, dataset: str, name: str = "nnUNetPlans") -> Any:
    return json.loads(project.workspace.plans_file(dataset, name).read_text())


def test_under_the_same_name_the_data_set_alone_changes(project: Project, source: str) -> None:
    made = move_plans(project, source, TARGET)
    assert made.dataset_name == TARGET
    moved, before = plans_of(project, TARGET), plans_of(project, source)
    assert {**moved, "segplug": None} == {**before, "dataset_name": TARGET, "segplug": None}
    assert moved["segplug"]["provenance"] == before["segplug"]["provenance"]
    assert (project.workspace.preprocessed_folder(TARGET) / "dataset.json").is_file()


def test_another_name_is_that_of_the_folders_too(project: Project, source: str) -> None:
    before = plans_of(project, source)
    before["configurations"]["mine"] = {"inherits_from": "2d", "data_identifier": "elsewhere"}
    project.workspace.plans_file(source, "nnUNetPlans").write_text(json.dumps(before))
    made = move_plans(project, source, TARGET, plans_name="Theirs").configurations
    assert made["3d_fullres"].data_identifier == "Theirs_3d_fullres"
    assert made["mine"].data_identifier == "Theirs_elsewhere"


def test_moved_plans_can_be_preprocessed_with(project: Project, source: str) -> None:
    move_plans(project, source, TARGET, plans_name="Theirs")
    preprocess(project, TARGET, configurations=["3d_fullres"], plans_name="Theirs")
    assert project.workspace.store_folder(TARGET, "Theirs_3d_fullres").is_dir()


def test_images_of_other_channels_are_refused(project: Project, source: str) -> None:
    write(project, ("A", "B", "C"))
    with pytest.raises(DataError, match=f"planned for 2 channels, and images of {TARGET} have 3"):
        move_plans(project, source, TARGET)
    assert not project.workspace.plans_file(TARGET, "nnUNetPlans").exists()


def test_other_plans_are_not_overwritten(project: Project, source: str) -> None:
    move_plans(project, source, TARGET)
    move_plans(project, source, TARGET)  # nothing new
    plan(project, source, planner="resenc_m")
    with pytest.raises(UsageError, match="has other plans of this name"):
        move_plans(project, source, TARGET, from_plans="nnUNetResEncUNetMPlans", plans_name="nnUNetPlans")
    with pytest.raises(UsageError, match="expected a plain file name"):
        move_plans(project, source, TARGET, plans_name="../x")


def test_the_command(project: Project, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    roots = project.workspace

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as exit_:
            main(["--raw", str(roots.raw), "--preprocessed", str(roots.preprocessed), "plan", *arguments])
        return int(exit_.value.code or 0)

    assert run("502", "--from-dataset", "501", "--plans-name", "Theirs", "--format", "json") == 0
    assert [row["configuration"] for row in json.loads(capsys.readouterr().out)] == ["2d", "3d_fullres"]
    assert Path(roots.plans_file(TARGET, "Theirs")).is_file()
    assert run("502", "--from-plans", "nnUNetPlans") == 2
    assert run("502", "--from-dataset", "501", "--planner", "resenc_m") == 2
    assert "takes plans over as they are" in capsys.readouterr().err
