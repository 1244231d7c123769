"""The preprocess stage: what it writes, keeps and redoes, and how it ends when cases are bad or it is killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segplug.errors import DataError, UsageError
from segplug.model import Labels
from segplug.runtime.case_reading import read_image, read_labels
from segplug.runtime.class_locations import class_locations
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.preprocessing import preprocess_image
from segplug.runtime.project import Project, open_project
from segplug.runtime.raw_dataset import load_dataset
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.preprocess import preprocess
from segplug.testing.phantoms import Phantom, write_phantom_dataset
from segplug_builtin.stores import Blosc2Store

NAME = "Dataset601_Phantom"
CASES = [f"phantom_{i:03d}" for i in range(4)]
IDENTIFIERS = ["nnUNetPlans_2d", "nnUNetPlans_3d_fullres"]
NEW = dict.fromkeys(CASES, "new")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def edit_labels(file: Path, value: int) -> None:
    image = sitk.ReadImage(str(file))
    array = sitk.GetArrayFromImage(image)
    array[2, 2, 2:4] = value
    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(file))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_case_is_what_preprocess_image_makes(planned: Path, project: Project, workers: int) -> None:
    with open_project(project.workspace.raw, project.workspace.preprocessed, workers=workers) as working:
        done = preprocess(working, NAME)
    assert done.made == dict.fromkeys(IDENTIFIERS, NEW)
    assert done.kept == {name: [] for name in IDENTIFIERS}
    raw = load_dataset(planned)
    the_plan = read_plan(project.workspace.plans_file(NAME, "nnUNetPlans"))
    reader = project.kernel.registry.build("readers", the_plan.reader)
    for configuration in the_plan.configurations.values():
        folder = project.workspace.store_folder(NAME, configuration.data_identifier)
        store = Blosc2Store(folder, configuration.patch_size)
        assert store.cases() == CASES
        for case in raw.cases.values():
            assert case.label is not None
            image, labels = read_image(reader, case, 2), read_labels(reader, case.label)
            data, target, properties = preprocess_image(image, labels, the_plan, configuration, project.kernel.registry)
            assert target is not None
            opened = store.open(case.name)
            found, found_target = opened.read((0, 0, 0), opened.shape)
            assert np.array_equal(found, data)
            assert np.array_equal(found_target, target)
            assert opened.properties == properties
            expected = class_locations(target, raw.description.labels)
            assert opened.locations.keys() == expected.keys()
            assert all(np.array_equal(opened.locations[key], expected[key]) for key in expected)
    copies = project.workspace.reference_folder(NAME)
    assert contents(copies) == contents(planned / "labelsTr")


def test_what_is_current_is_kept(planned: Path, project: Project) -> None:
    first = preprocess(project, NAME, configurations=["2d"])
    assert list(first.made) == ["nnUNetPlans_2d"]
    second = preprocess(project, NAME)
    assert second.kept == {"nnUNetPlans_2d": CASES, "nnUNetPlans_3d_fullres": []}
    assert second.made == {"nnUNetPlans_2d": {}, "nnUNetPlans_3d_fullres": NEW}
    before = contents(project.workspace.preprocessed_folder(NAME))
    third = preprocess(project, NAME)
    assert third.kept == dict.fromkeys(IDENTIFIERS, CASES)
    assert contents(project.workspace.preprocessed_folder(NAME)) == before
    assert third.summary() == "nnUNetPlans_2d: 4 kept\nnnUNetPlans_3d_fullres: 4 kept"


def test_what_is_stale_is_redone(planned: Path, project: Project) -> None:
    preprocess(project, NAME)
    os.utime(planned / "imagesTr" / "phantom_000_0001.nii.gz")  # touched, not changed
    edit_labels(planned / "labelsTr" / "phantom_001.nii.gz", 1)
    store = project.workspace.store_folder(NAME, "nnUNetPlans_2d")
    damaged = store / "phantom_002.case"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    (project.workspace.reference_folder(NAME) / "phantom_003.nii.gz").unlink()
    done = preprocess(project, NAME)
    changed = "phantom_001.nii.gz has changed"
    assert done.made == {
        "nnUNetPlans_2d": {"phantom_001": changed, "phantom_002": "new"},
        "nnUNetPlans_3d_fullres": {"phantom_001": changed},
    }
    assert done.kept["nnUNetPlans_3d_fullres"] == ["phantom_000", "phantom_002", "phantom_003"]
    assert done.summary().startswith("nnUNetPlans_2d: 1 made (changed files), 1 made (new), 2 kept")
    copies = project.workspace.reference_folder(NAME)
    assert contents(copies) == contents(planned / "labelsTr")


def test_other_settings_make_cases_stale(planned: Path, project: Project) -> None:
    preprocess(project, NAME)
    file = project.workspace.plans_file(NAME, "nnUNetPlans")
    plans = json.loads(file.read_text())
    plans["configurations"]["3d_fullres"]["batch_size"] += 1  # of no matter here
    plans["configurations"]["2d"]["spacing"] = [1.5, 1.5]
    file.write_text(json.dumps(plans))
    done = preprocess(project, NAME)
    assert done.made["nnUNetPlans_2d"] == dict.fromkeys(CASES, "other settings (spacing)")
    assert done.kept["nnUNetPlans_3d_fullres"] == CASES


def test_configurations_share_an_identifier_or_say_why_not(planned: Path, project: Project) -> None:
    file = project.workspace.plans_file(NAME, "nnUNetPlans")
    plans = json.loads(file.read_text())
    configurations = plans["configurations"]
    configurations["small"] = {"inherits_from": "3d_fullres", "patch_size": [8, 8, 8]}
    file.write_text(json.dumps(plans))
    assert list(preprocess(project, NAME, configurations=["3d_fullres", "small"]).made) == ["nnUNetPlans_3d_fullres"]
    configurations["small"]["spacing"] = [2.0, 2.0, 2.0]
    file.write_text(json.dumps(plans))
    with pytest.raises(DataError, match=r"'3d_fullres' and 'small' share .* differ in spacing\. Give one"):
        preprocess(project, NAME)


def test_bad_cases_are_named_and_the_others_kept(planned: Path, project: Project) -> None:
    image = sitk.ReadImage(str(planned / "imagesTr" / "phantom_000_0000.nii.gz"), sitk.sitkFloat32)
    image[3, 3, 3] = float("nan")
    sitk.WriteImage(image, str(planned / "imagesTr" / "phantom_000_0000.nii.gz"))
    edit_labels(planned / "labelsTr" / "phantom_001.nii.gz", 9)
    broken = planned / "imagesTr" / "phantom_003_0001.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-50])
    with pytest.raises(DataError) as raised:
        preprocess(project, NAME)
    text = str(raised.value)
    assert "3 of 4 cases cannot be preprocessed" in text
    assert "phantom_000_0000.nii.gz: channel 0 has 1 values that are not finite" in text
    assert "phantom_001.nii.gz: labels that dataset.json does not have: 9 (2 voxels); expected [0, 1, 2]" in text
    assert str(broken) in text
    assert "nnUNetPlans_2d: 1 made (new)" in text
    for name in IDENTIFIERS:
        assert Blosc2Store(project.workspace.store_folder(NAME, name), (8, 8)).cases() == ["phantom_002"]


def test_labels_beside_the_image_are_refused(planned: Path, project: Project) -> None:
    file = planned / "labelsTr" / "phantom_002.nii.gz"
    labels = sitk.ReadImage(str(file))
    labels.SetOrigin([o + 30 for o in labels.GetOrigin()])
    sitk.WriteImage(labels, str(file))
    with pytest.raises(DataError, match=r"case phantom_002: .*origin .* expected .* \(the image's\)"):
        preprocess(project, NAME)


def test_unknown_names(planned: Path, project: Project) -> None:
    with pytest.raises(UsageError, match=r"no configuration '3d'.* There are: 2d, 3d_fullres"):
        preprocess(project, NAME, configurations=["3d"])
    with pytest.raises((DataError, UsageError), match="otherPlans"):
        preprocess(project, NAME, plans_name="otherPlans")


@pytest.mark.parametrize(
    "look",
    [
        Phantom((10, 18, 16), (3.5, 1.0, 1.0), classes=3, regions=True),
        Phantom((8, 24, 22), (9.0, 1.0, 1.0), ignored=0.6),
        Phantom((1, 40, 36), (999.0, 1.0, 1.0), channels=("R", "G"), file_ending=".png"),
        Phantom((12, 20, 18), (2.0, 1.0, 1.0), file_ending=".tif"),
    ],
    ids=["regions, coarse axis", "ignore label", "png", "tiff"],
)
def test_other_kinds_of_data(project: Project, look: Phantom) -> None:
    assert project.workspace.raw is not None
    folder = write_phantom_dataset(project.workspace.raw / NAME, look, cases=2)
    fingerprint(project, NAME)
    planned = plan(project, NAME)
    preprocess(project, NAME)
    labels = load_dataset(folder).description.labels
    for configuration in planned.configurations.values():
        folder = project.workspace.store_folder(NAME, configuration.data_identifier)
        store = Blosc2Store(folder, configuration.patch_size)
        for name in store.cases():
            case = store.open(name)
            _, target = case.read((0, 0, 0), case.shape)
            allowed = {-1, *labels.all_labels, *filter(None, [labels.ignore_label])}
            assert set(np.unique(target).tolist()) <= allowed
            assert set(case.locations) >= set(labels.classes)
            assert sum(map(len, case.locations.values())) > 0
    if look.file_ending == ".tif":
        copy = project.workspace.reference_folder(NAME) / "phantom_000.tif"
        reader = project.kernel.registry.build("readers", planned.reader)
        copied: Labels = read_labels(reader, copy)
        assert copied.spacing == (2.0, 1.0, 1.0)


def command(project: Project, workers: int) -> list[str]:
    space = project.workspace
    roots = ["--raw", str(space.raw), "--preprocessed", str(space.preprocessed), "--results", str(space.results)]
    code = "from segplug.cli.main import main; main()"
    return [sys.executable, "-c", code, *roots, "preprocess", NAME, "--workers", str(workers)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_any_moment_and_called_again(planned: Path, project: Project, workers: int) -> None:
    call = command(project, workers)
    folder = project.workspace.preprocessed_folder(NAME)
    start = time.monotonic()
    subprocess.run(call, check=True, capture_output=True)
    duration = time.monotonic() - start
    expected = contents(folder)
    for name in [*IDENTIFIERS, "gt_segmentations"]:
        shutil.rmtree(folder / name)
    moments = random.Random(workers)
    for _ in range(6):
        process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(duration * moments.uniform(0.5, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = subprocess.run(call, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert contents(folder) == expected


def test_the_command(planned: Path, project: Project) -> None:
    done = subprocess.run([*command(project, 0), "-c", "2d"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "nnUNetPlans_2d: 4 made (new)\n"), done.stderr
    edit_labels(planned / "labelsTr" / "phantom_001.nii.gz", 9)
    failed = subprocess.run(command(project, 1), capture_output=True, text=True)
    assert failed.returncode == 1
    assert "phantom_001.nii.gz: labels that dataset.json does not have" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert subprocess.run([*command(project, 0), "-c", "4d"], capture_output=True).returncode == 2


def test_it_never_imports_torch(planned: Path, project: Project) -> None:
    code = (
        "import sys; from segplug import open_project; from segplug.stages.preprocess import preprocess; "
        f"preprocess(open_project({str(project.workspace.raw)!r}, {str(project.workspace.preprocessed)!r}, workers=0), "
        f"{NAME!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
