"""The fingerprint of whole data sets: nnU-Net's numbers, kept while nothing changes, bad cases named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from segplug.errors import DataError, UsageError
from segplug.model import Fingerprint
from segplug.runtime.fingerprint_codec import read_fingerprint
from segplug.runtime.project import Project, open_project
from segplug.stages import fingerprint as module
from segplug.stages.fingerprint import fingerprint

DRAWS = 1e6
Edit = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def edit(file: Path, change: Edit) -> None:
    """Rewrite an image in place with other voxels."""
    image = sitk.ReadImage(file)
    changed = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    changed.CopyInformation(image)
    sitk.WriteImage(changed, file)


def raw_folder(project: Project, name: str) -> Path:
    assert project.workspace.raw is not None
    return project.workspace.raw / name


def by_definition(folder: Path, draws: float) -> dict[str, Any]:
    """nnU-Net's definition, straightforward: every draw is held."""
    labels = sorted((folder / "labelsTr").glob("*.nii.gz"))
    drawn: list[list[Any]] = []
    shapes, spacings, sizes = [], [], []
    for file in labels:
        name = file.name.removesuffix(".nii.gz")
        files = sorted((folder / "imagesTr").glob(f"{name}_*.nii.gz"))
        images = [sitk.ReadImage(f) for f in files]
        data = np.stack([sitk.GetArrayFromImage(i).astype(np.float32) for i in images])
        target = sitk.GetArrayFromImage(sitk.ReadImage(file))
        places = np.argwhere((data != 0).any(0))
        box = tuple(slice(a, b + 1) for a, b in zip(places.min(0), places.max(0), strict=True))
        shapes.append(tuple(int(s.stop - s.start) for s in box))
        spacings.append(images[0].GetSpacing()[::-1])
        sizes.append(np.prod(shapes[-1]) / target.size)
        random = np.random.RandomState(1234)
        foreground = [channel[box][target[box] > 0] for channel in data]
        drawn.append([random.choice(v, int(draws // len(labels))) if v.size else [] for v in foreground])
    everything = [np.concatenate([case[c] for case in drawn]) for c in range(len(drawn[0]))]
    return {"shapes": shapes, "spacings": spacings, "size": np.median(sizes), "drawn": everything}


def assert_equal_to_definition(found: Fingerprint, expected: dict[str, Any]) -> None:
    assert list(found.shapes_after_crop) == expected["shapes"]
    assert list(found.spacings) == expected["spacings"]
    assert found.median_relative_size_after_cropping == expected["size"]
    for channel, drawn in zip(found.channels, expected["drawn"], strict=True):
        low, median, high = np.percentile(drawn, np.array((0.5, 50.0, 99.5)))
        assert (channel.percentile_00_5, channel.median, channel.percentile_99_5) == (low, median, high)
        assert (channel.min, channel.max) == (drawn.min(), drawn.max())
        np.testing.assert_allclose(channel.mean, np.mean(drawn, dtype=np.float64), rtol=1e-9)
        np.testing.assert_allclose(channel.std, np.std(drawn, dtype=np.float64), rtol=1e-9)


def test_real_data_sets_equal_nnunet(shared: Path, real_dataset: str, tmp_path: Path) -> None:
    with open_project(shared / "datasets", tmp_path, workers=0) as project:
        found = fingerprint(project, real_dataset)
    expected = read_fingerprint(shared / "reference" / real_dataset / "dataset_fingerprint.json")
    assert found.spacings == expected.spacings
    assert found.shapes_after_crop == expected.shapes_after_crop
    assert found.median_relative_size_after_cropping == expected.median_relative_size_after_cropping
    for ours, theirs in zip(found.channels, expected.channels, strict=True):
        exact = ("median", "min", "max", "percentile_99_5", "percentile_00_5")
        assert [getattr(ours, name) for name in exact] == [getattr(theirs, name) for name in exact]
        # nnunetv2 sums in float32; ours are the more exact ones
        np.testing.assert_allclose([ours.mean, ours.std], [theirs.mean, theirs.std], rtol=1e-6)
    written = json.loads((tmp_path / real_dataset / "dataset_fingerprint.json").read_text())
    theirs_raw = json.loads((shared / "reference" / real_dataset / "dataset_fingerprint.json").read_text())
    assert set(written) == {*theirs_raw, "segplug"}


@pytest.fixture
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """For phantoms, whose draws by definition would take longest."""
    monkeypatch.setattr(module, "TOTAL_DRAWS", DRAWS)


@pytest.mark.usefixtures("fewer_draws")
def test_cropping_channels_and_spacing(project: Project, phantom: str) -> None:
    folder = raw_folder(project, phantom)
    for channel in (0, 1):  # air around the body in both channels, so that there is something to crop
        edit(
            folder / "imagesTr" / f"phantom_000_{channel:04d}.nii.gz",
            lambda a: np.pad(a[4:-3, 5:], ((4, 3), (5, 0), (0, 0))),
        )
    assert_equal_to_definition(fingerprint(project, phantom), by_definition(folder, DRAWS))


@pytest.mark.usefixtures("fewer_draws")
def test_a_case_without_foreground_counts_with_its_shape_alone(project: Project, phantom: str) -> None:
    folder = raw_folder(project, phantom)
    edit(folder / "labelsTr" / "phantom_001.nii.gz", np.zeros_like)
    found = fingerprint(project, phantom)
    assert len(found.shapes_after_crop) == 5
    assert_equal_to_definition(found, by_definition(folder, DRAWS))


def test_workers_change_nothing(project: Project, phantom: str, tmp_path: Path) -> None:
    with open_project(project.workspace.raw, tmp_path / "other", workers=2) as other:
        assert fingerprint(other, phantom) == fingerprint(project, phantom)


@pytest.mark.usefixtures("fewer_draws")
def test_it_is_kept_until_a_file_changes(project: Project, phantom: str) -> None:
    first = fingerprint(project, phantom)
    file = project.workspace.fingerprint_file(phantom)
    written = file.stat().st_mtime_ns
    assert fingerprint(project, phantom) == first
    assert file.stat().st_mtime_ns == written
    fingerprint(project, phantom, overwrite=True)
    assert file.stat().st_mtime_ns > written
    edit(raw_folder(project, phantom) / "imagesTr" / "phantom_002_0000.nii.gz", lambda a: a + 5)
    changed = fingerprint(project, phantom)
    assert changed.channels[0].mean > first.channels[0].mean


@pytest.mark.parametrize("content", ["", '{"spacings": [', '{"spacings": [], "shapes_after_crop": []}'])
def test_a_damaged_or_foreign_file_is_made_anew(project: Project, phantom: str, content: str) -> None:
    file = project.workspace.fingerprint_file(phantom)
    file.parent.mkdir(parents=True)
    file.write_text(content)
    assert len(fingerprint(project, phantom).spacings) == 5
    assert read_fingerprint(file) == fingerprint(project, phantom)


def test_every_bad_case_is_named(project: Project, phantom: str) -> None:
    folder = raw_folder(project, phantom)
    edit(folder / "imagesTr" / "phantom_001_0000.nii.gz", lambda a: np.where(a > 0, np.nan, a).astype(np.float32))
    edit_shape = sitk.ReadImage(folder / "labelsTr" / "phantom_003.nii.gz")[1:]
    sitk.WriteImage(edit_shape, folder / "labelsTr" / "phantom_003.nii.gz")
    (folder / "imagesTr" / "phantom_004_0001.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        fingerprint(project, phantom)
    told = str(caught.value)
    assert "3 of 5 cases" in told
    for name in ("phantom_001", "phantom_003", "phantom_004_0001.nii.gz"):
        assert name in told
    assert not project.workspace.fingerprint_file(phantom).exists()


def test_a_data_set_without_foreground_is_an_error(project: Project, phantom: str) -> None:
    for file in (raw_folder(project, phantom) / "labelsTr").iterdir():
        edit(file, np.zeros_like)
    with pytest.raises(DataError, match="no case has foreground"):
        fingerprint(project, phantom)


def test_an_unknown_data_set_is_a_usage_error(project: Project, phantom: str) -> None:
    with pytest.raises(UsageError, match="Dataset501_Phantom"):
        fingerprint(project, 77)


def test_the_command_imports_neither_torch_nor_scipy(project: Project, phantom: str) -> None:
    program = """
import sys
from segplug.cli.main import main
raw, preprocessed = sys.argv[1:]
roots = ["--raw", raw, "--preprocessed", preprocessed]
for command in (["fingerprint", "501", "--workers", "0"], ["plan", "501"], ["plan", "501", "--planner", "compact"]):
    try:
        main([*roots, *command])
    except SystemExit as exit:
        assert not exit.code, exit.code
assert "torch" not in sys.modules
assert "scipy" not in sys.modules
"""
    folders = [str(project.workspace.raw), str(project.workspace.preprocessed)]
    done = subprocess.run(
        [sys.executable, "-c", program, *folders], capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stderr
    assert "cases\t5" in done.stdout
    assert "3d_fullres\t" in done.stdout
    assert (project.workspace.preprocessed_folder(phantom) / "segplugCompactPlans.json").is_file()
