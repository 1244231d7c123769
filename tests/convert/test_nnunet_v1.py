"""nnU-Net v1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segplug.errors import DataError
from segplug.runtime.project import Project
from segplug.stages.convert import convert


def test_files_stay_as_they_are(v1: Any, project: Project, raw: Path) -> None:
    before = v1.content()
    made = convert(project, v1.folder, "Dataset107_Pancreas")
    assert (made.folder, made.converter) == (raw / "Dataset107_Pancreas", "nnunet-v1")
    assert made.verification is not None
    assert made.verification.findings == ()
    assert v1.content() == before
    files = {str(p.relative_to(made.folder)) for p in made.folder.rglob("*.nii.gz")}
    assert files == {name for name in before if name.endswith(".nii.gz")}
    assert all((made.folder / name).read_bytes() == (v1.folder / name).read_bytes() for name in files)
    description = json.loads((made.folder / "dataset.json").read_text())
    assert set(description) == {"name", "description", "labels", "numTraining", "channel_names", "file_ending"}
    assert description["labels"] == {"background": 0, "PZ": 1, "TZ": 2}
    assert description["channel_names"] == {"0": "T2", "1": "ADC"}


def test_missing_files(v1: Any, project: Project) -> None:
    (v1.folder / "imagesTr/case_0_0001.nii.gz").unlink()
    (v1.folder / "imagesTr/case_1_0000.nii.gz").unlink()
    (v1.folder / "labelsTr/case_2.nii.gz").unlink()
    with pytest.raises(DataError, match="3 problems") as caught:
        convert(project, v1.folder)
    message = str(caught.value)
    assert f"case_0: {v1.folder}/imagesTr/case_0_0001.nii.gz: missing channel" in message
    assert f"case_1: {v1.folder}/imagesTr/case_1_0000.nii.gz: missing channel" in message
    assert f"case_2: {v1.folder}/labelsTr/case_2.nii.gz: missing label" in message


def test_the_decathlon_is_not_taken_for_it(msd: Any, project: Project) -> None:
    with pytest.raises(DataError, match="--from msd"):
        convert(project, msd.folder, converter="nnunet-v1")
