"""The same images in the layouts that converters read: each becomes the same data set, which is trained and predicts.

All by the commands, as a person would call them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from segplug.cli.main import app
from segplug.runtime.plan_codec import read_plan, write_plan
from segplug.testing import Phantom
from segplug.testing.phantoms import make_case

pytestmark = pytest.mark.slow

NAME, PLANS = "Dataset005_Organs", "handMade"
PHANTOM = Phantom(shape=(20, 28, 26), channels=("T1w", "FLAIR"))
TRAINED, SPACING = 4, (1.0, 1.0, 1.5)
OLD = {
    "name": "Organs",
    "tensorImageSize": "4D",
    "modality": {"0": "T1w", "1": "FLAIR"},
    "labels": {"0": "background", "1": "left", "2": "right"},
    "numTraining": TRAINED,
    "numTest": 1,
    "training": [],
    "test": [],
}
Write = Callable[[str, np.ndarray], None]


def as_msd(write: Write, number: int, channels: Sequence[np.ndarray], labels: np.ndarray) -> None:
    part = "Tr" if number < TRAINED else "Ts"
    write(f"images{part}/organs_{number}.nii.gz", np.stack(channels, -1))
    if number < TRAINED:
        write(f"labelsTr/organs_{number}.nii.gz", labels)


def as_v1(write: Write, number: int, channels: Sequence[np.ndarray], labels: np.ndarray) -> None:
    part = "Tr" if number < TRAINED else "Ts"
    for channel, image in enumerate(channels):
        write(f"images{part}/organs_{number}_{channel:04d}.nii.gz", image)
    write(f"labels{part}/organs_{number}.nii.gz", labels)


def as_folder(write: Write, number: int, channels: Sequence[np.ndarray], labels: np.ndarray) -> None:
    """A folder per patient with spaces and brackets in names, a mask of each structure in files of their own."""
    for name, image in zip(PHANTOM.channels, channels, strict=True):
        write(f"study (1)/organs_{number}/{name} scan.nii.gz", image)
    for value, side in ((1, "left"), (2, "right")) if number < TRAINED else ():
        write(f"study (1)/organs_{number}/mask [{side}].nii.gz", (labels == value).astype(np.uint8))


def as_bids(write: Write, number: int, channels: Sequence[np.ndarray], labels: np.ndarray) -> None:
    """The labels have other numbers, which no table names."""
    place = f"sub-{number}/anat/sub-{number}"
    for name, image in zip(PHANTOM.channels, channels, strict=True):
        write(f"{place}_{name}.nii.gz", image)
    if number < TRAINED:
        write(f"derivatives/manual/{place}_dseg.nii.gz", np.choose(labels, [0, 17, 53]).astype(np.uint8))


LAYOUTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "msd": (as_msd, ()),
    "nnunet-v1": (as_v1, ()),
    "folder": (
        as_folder,
        (
            "--from=folder",
            "--images=study (1)/{case}/{channel} scan.nii.gz",
            "--masks=study (1)/{case}/mask [{label}].nii.gz",
            *("--channel=T1w", "--channel=FLAIR", "--label=left", "--label=right", "--unlabelled=test"),
        ),
    ),
    "bids": (
        as_bids,
        ("--channel=T1w", "--channel=FLAIR", "--label=left=17", "--label=right=53", "--unlabelled=test"),
    ),
}


def segplug(root: Path, *arguments: object) -> str:
    roots = [f"--{part}={root / part}" for part in ("raw", "preprocessed", "results")]
    done = CliRunner().invoke(app, [*roots, *map(str, arguments)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.fixture(scope="module")
def cases() -> list[tuple[list[np.ndarray], np.ndarray]]:
    """Channels and labels (x, y, z)."""
    made = [make_case(PHANTOM, number=number)[:2] for number in range(TRAINED + 1)]
    return [([channel.T.astype(np.int16) for channel in image], labels.T) for image, labels in made]


@pytest.fixture(scope="module")
def converted(request: pytest.FixtureRequest, cases: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    kind: str = request.param
    root = tmp_path_factory.mktemp("converted")
    source = root / "Task05_Organs"

    def write(name: str, array: np.ndarray) -> None:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, np.diag((*SPACING, 1.0))), source / name)

    layout, options = LAYOUTS[kind]
    for number, (channels, labels) in enumerate(cases):
        layout(write, number, channels, labels)
    if not options:
        (source / "dataset.json").write_text(json.dumps(OLD))
    if kind == "bids":
        (source / "dataset_description.json").write_text('{"Name": "organs", "BIDSVersion": "1.8.0"}')
    segplug(root, "dataset", "convert", source, NAME, *options, "--workers", "0")
    return kind, root


@pytest.mark.parametrize("converted", LAYOUTS, indirect=True)
def test_every_layout_becomes_the_same_data_set(converted: tuple[str, Path], cases: Any) -> None:
    kind, root = converted
    raw = root / "raw" / NAME
    description = json.loads((raw / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "left": 1, "right": 2}
    assert description["channel_names"] == {"0": "T1w", "1": "FLAIR"}
    assert description["numTraining"] == TRAINED
    for number, (channels, labels) in enumerate(cases):
        part, case = "Tr" if number < TRAINED else "Ts", f"sub-{number}" if kind == "bids" else f"organs_{number}"
        for channel, image in enumerate(channels):
            found = nibabel.load(raw / f"images{part}/{case}_{channel:04d}.nii.gz")
            np.testing.assert_array_equal(np.asanyarray(found.dataobj), image)
            np.testing.assert_allclose(found.header.get_zooms(), SPACING)
        if number < TRAINED:
            np.testing.assert_array_equal(np.asanyarray(nibabel.load(raw / f"labelsTr/{case}.nii.gz").dataobj), labels)
    assert len(list((raw / "imagesTs").iterdir())) == 2


@pytest.mark.parametrize("converted", ["folder"], indirect=True)  # the others are voxel by voxel the same data set
def test_what_was_converted_is_trained_and_predicts(converted: tuple[str, Path], cases: Any, shrink: Any) -> None:
    _, root = converted
    segplug(root, "prepare", NAME, "--planner", "compact", "--plans-name", PLANS, "--workers", "0", "-c", "3d_fullres")
    file = root / "preprocessed" / NAME / f"{PLANS}.json"
    plan = read_plan(file)
    small = shrink(plan.configurations["3d_fullres"], (16, 16, 16), (16, 32), 2)
    write_plan(file, replace(plan, configurations={"3d_fullres": small}))
    settings = {"epochs": 4, "iterations_per_epoch": 40, "val_iterations_per_epoch": 1, "lr": 2e-2}
    given = [f"--set=trainer.{key}={value}" for key, value in (settings | {"augmentation": "none"}).items()]
    fast = ("--device", "cpu", "--workers", "0")
    segplug(root, "run", "5", "-f", "0", "--plans-name", PLANS, "--precision", "fp32", *given, *fast)
    out = root / "out"
    images, model = root / "raw" / NAME / "imagesTs", ("-d", "5", "-c", "3d_fullres", "-f", "0", "--plans-name", PLANS)
    segplug(root, "predict", "-i", images, "-o", out, *model, *fast)
    found = np.asanyarray(nibabel.load(out / f"organs_{TRAINED}.nii.gz").dataobj)
    reference = cases[TRAINED][1]
    for label in (1, 2):
        a, b = found == label, reference == label
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.7
