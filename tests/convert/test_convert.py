"""What holds for every converter: nothing half-made, nothing overwritten, the source untouched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from segplug import Component, hookimpl
from segplug.cli.main import main
from segplug.errors import DataError, PluginError, UsageError
from segplug.kernel import Kernel
from segplug.model import Conversion, ConvertedFile
from segplug.protocols import recognised_by
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.convert import convert, guess_converter


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        main([*map(str, arguments)])
        code: Any = 0
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_on_the_command_line(msd: Any, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--raw", raw, "dataset", "convert", msd.folder, "--workers", "0")
    assert code == 0
    assert f"written: {raw}/Dataset005_Prostate" in out
    assert "3 cases read with SimpleITKIO: no problem" in out
    assert "taken for msd, by its dataset.json" in err
    code, _, err = run(capsys, "--raw", raw, "dataset", "convert", msd.folder, "--workers", "0")
    assert code == 2
    assert "exists already" in err
    code, _, err = run(capsys, "--raw", raw, "dataset", "convert", msd.folder, "Dataset005_Other", "--workers", "0")
    assert code == 2
    assert "its id belongs to Dataset005_Prostate" in err


def test_options_on_the_command_line(folder: Any, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for case in ("a", "b"):
        folder.image(f"x/{case}.nii.gz")
        folder.labels(f"y/{case}.nii.gz", (0, 5))
    command = ["--raw", raw, "dataset", "convert", folder.folder, "8", "--from", "folder", "--workers", "0"]
    patterns = ["--images", "x/{case}.nii.gz", "--masks", "y/{case}.nii.gz"]
    code, _, err = run(capsys, *command, *patterns, "--set", "colour=3")
    assert code == 2
    assert "'colour'" in err
    code, _, err = run(capsys, *command, *patterns, "--set", 'unlabelled=["skip"]')
    assert code == 2
    assert "folder: option unlabelled is ['skip'], which is no" in err
    code, out, _ = run(capsys, *command, *patterns, "--channel", "CT", "--label", "lung=5")
    assert code == 0, out
    description = json.loads((raw / "Dataset008_scans" / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "lung": 1}
    assert description["channel_names"] == {"0": "CT"}


def test_what_is_wrong_with_the_data_makes_the_exit_code_1(
    v1: Any, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    v1.labels("labelsTr/case_1.nii.gz", (0, 1, 9))
    code, out, _ = run(capsys, "--raw", raw, "dataset", "convert", v1.folder, "--workers", "0")
    assert code == 1
    assert "unexpected labels" in out
    assert (raw / "Dataset007_Pancreas").is_dir()


def test_hard_links(v1: Any, msd: Any, project: Project) -> None:
    folder = convert(project, v1.folder, link=True).folder
    for part in ("imagesTr/case_0_0000", "labelsTs/case_9"):
        assert (folder / f"{part}.nii.gz").samefile(v1.folder / f"{part}.nii.gz")
    folder = convert(project, msd.folder, link=True).folder
    assert (folder / "labelsTr/case_0.nii.gz").samefile(msd.folder / "labelsTr/case_0.nii.gz")
    assert (folder / "imagesTr/case_0_0001.nii.gz").is_file()


def test_links_of_the_source_are_followed(v1: Any, project: Project, tmp_path: Path) -> None:
    path = v1.folder / "imagesTr/case_0_0000.nii.gz"
    away = tmp_path / "annex"
    path.rename(away)
    path.symlink_to(away)
    folder = convert(project, v1.folder).folder
    assert not (folder / "imagesTr/case_0_0000.nii.gz").is_symlink()
    away.unlink()
    with pytest.raises(DataError, match=rf"case_0 .*{path}: found no such file \(a link to a file that is not there\)"):
        convert(project, v1.folder, 55)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("name", "told"),
    [("Prostate", "expected DatasetXXX_NAME"), ("Dataset5_X", "expected DatasetXXX_NAME"), ("out/x", "named Dataset")],
)
def test_wrong_names(msd: Any, project: Project, name: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        convert(project, msd.folder, name)


def test_a_path_as_the_target(msd: Any, project: Project, tmp_path: Path) -> None:
    made = convert(project, msd.folder, tmp_path / "elsewhere" / "Dataset011_X")
    assert (made.folder, made.folder.is_dir()) == (tmp_path / "elsewhere" / "Dataset011_X", True)


def test_sources_that_are_not_recognised(project: Project, msd: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"none of the converters recognises this.*bids, folder, msd, nnunet-v1"):
        guess_converter(project, tmp_path / "empty")
    with pytest.raises(UsageError, match="no such file or folder"):
        convert(project, tmp_path / "nothing", 5)
    with pytest.raises(UsageError, match=r"--from.*no component 'mds'.*Did you mean 'msd'"):
        convert(project, msd.folder, converter="mds")
    made = convert(project, msd.folder).folder
    with pytest.raises(UsageError, match="nnU-Net v2 already"):
        convert(project, made, 6)


class Stranger:
    """A plugin's converter, which claims a folder that a built-in one recognises too."""

    target = "imagesTr/a_0000.nii.gz"

    @hookimpl
    def segplug_converters(self) -> Any:
        @recognised_by(lambda source: "its smell")
        def smell(source: Path) -> Conversion:
            files = tuple(ConvertedFile("a", (source / "dataset.json",), (self.target,)) for _ in range(2))
            labels = {"background": 0, "a": 1}
            rest = {"channel_names": {"0": "x"}, "numTraining": 1, "file_ending": ".nii.gz"}
            return Conversion({"labels": labels, **rest}, files)

        yield Component("smell", "no.such.module:x", "by smell")
        yield Component("nose", smell, "by smell")


def test_converters_of_plugins(msd: Any, raw: Path) -> None:
    kernel = Kernel(discover=False)
    stranger = Stranger()
    kernel.register(stranger, "stranger")
    with Project(Workspace(raw), kernel, workers=0) as project:
        with pytest.raises(UsageError, match=r"msd by its dataset.json .*; nose by its smell"):
            guess_converter(project, msd.folder)
        with pytest.raises(DataError, match=r"several sources for one file of the data set: imagesTr/a_0000"):
            convert(project, msd.folder, converter="nose")
        stranger.target = "../../a.nii.gz"
        with pytest.raises(PluginError, match=r"'nose': wants to write ../../a.nii.gz"):
            convert(project, msd.folder, converter="nose")


SLOW = """
import sys, time
from pathlib import Path
from segplug.runtime import new_dataset
from segplug.cli.main import main
take = new_dataset.take_file
def slowly(source, target, *, link):
    take(source, target, link=link)
    time.sleep(60)
from segplug.stages import convert
convert.take_file = slowly
main(sys.argv[1:])
"""


def test_a_killed_conversion_leaves_nothing_in_the_way(v1: Any, project: Project, raw: Path) -> None:
    command = ["--raw", str(raw), "dataset", "convert", str(v1.folder), "--workers", "0"]
    process = subprocess.Popen([sys.executable, "-c", SLOW, *command], env={**os.environ, "PYTHONWARNINGS": ""})
    try:
        deadline = time.monotonic() + 120
        while not list(raw.rglob("*.nii.gz")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        with pytest.raises(UsageError, match="another run is writing here"):
            convert(project, v1.folder)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (raw / "Dataset007_Pancreas").exists()
    assert project.workspace.datasets() == []
    made = convert(project, v1.folder)
    assert made.verification is not None
    assert made.verification.ok
    assert [p.name for p in raw.iterdir()] == ["Dataset007_Pancreas"]
