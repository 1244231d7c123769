"""Pictures of a data set."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from typer.testing import CliRunner

from segplug.errors import DataError, UsageError
from segplug.kernel import Kernel
from segplug.runtime.overlay import COLOURS
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.overlays import overlays
from segplug.testing import Phantom, write_phantom_dataset

NAME = "Dataset007_Looked"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    write_phantom_dataset(tmp_path / NAME, Phantom((6, 24, 20), channels=("T1", "T2")), cases=3)
    return Project(Workspace(tmp_path), Kernel(discover=False), workers=0)


def colours(path: Path) -> set[str]:
    with Picture.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    return {"#{:02X}{:02X}{:02X}".format(*pixel) for pixel in np.unique(pixels, axis=0)}


def test_every_case_is_drawn_with_its_labels(project: Project, tmp_path: Path) -> None:
    drawn = overlays(project, 7, tmp_path / "out", slices=2)
    assert [path.name for path in drawn] == [f"phantom_00{number}.png" for number in range(3)]
    outlined = [colours(path) & set(COLOURS[:2]) for path in drawn]
    assert all(outlined)  # of two slices, some show one organ alone
    assert set.union(*outlined) == set(COLOURS[:2])
    before = drawn[0].read_bytes()
    overlays(project, 7, tmp_path / "out", slices=2, channel=1)
    assert drawn[0].read_bytes() != before


def test_predictions_are_shown_and_cases_without_one_left_out(project: Project, tmp_path: Path) -> None:
    (tmp_path / "predicted").mkdir()
    shutil.copy(tmp_path / NAME / "labelsTr" / "phantom_001.nii.gz", tmp_path / "predicted")
    plain = overlays(project, 7, tmp_path / "out")[1]
    (drawn,) = overlays(project, 7, tmp_path / "both", predictions=tmp_path / "predicted")
    assert drawn.name == plain.name
    with Picture.open(drawn) as both, Picture.open(plain) as one:
        assert both.size[1] > one.size[1]  # two rows more


def test_what_is_wrong_is_told_and_the_others_are_drawn(project: Project, tmp_path: Path) -> None:
    shutil.copy(
        tmp_path / NAME / "labelsTr" / "phantom_001.nii.gz", tmp_path / NAME / "labelsTr" / "phantom_002.nii.gz"
    )
    with pytest.raises(DataError, match=r"1 of 3 cases not drawn:\n.*phantom_002: reference of shape"):
        overlays(project, 7, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 2
    for options, told in (({"channel": 2}, "channels 0 to 1"), ({"predictions": tmp_path / "no"}, "no such folder")):
        with pytest.raises(UsageError, match=told):
            overlays(project, 7, tmp_path / "out", **options)  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no label map"):
        overlays(project, 7, tmp_path / "out", predictions=tmp_path / "empty")


def test_the_command(project: Project, tmp_path: Path) -> None:
    from segplug.cli.main import app

    out = tmp_path / "pictures"
    arguments = ["--raw", str(tmp_path), "dataset", "overlay", NAME, "-o", str(out), "--slices", "1", "--workers", "0"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "3 pictures" in done.output
    assert len(list(out.glob("*.png"))) == 3
