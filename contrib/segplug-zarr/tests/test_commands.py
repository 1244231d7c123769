"""A data set of OME-Zarr folders through the commands, beside the same one of NIfTI files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from segplug_zarr.images import ome_zarr
from segplug_zarr.label_maps import write_ome_zarr

from segplug.model import Image, Labels
from segplug.sample import DATASET, sample_root
from segplug.testing import conformance

Segplug = Callable[..., str]
MODEL = f"results/{DATASET}/nnUNetTrainer__segplugCompactPlans__3d_fullres"
SETTINGS = ("trainer.epochs=1", "trainer.iterations_per_epoch=2", "trainer.val_iterations_per_epoch=1")
FEW = [part for setting in (*SETTINGS, "trainer.batch_size=2") for part in ("--set", setting)]
ON_CPU = ("--device", "cpu", "--precision", "fp32", "--workers", "0")


def caller(folder: Path, raw: Path) -> Segplug:
    """Calls segplug as a user does, with folders of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("nnUNet", "SEGPLUG"))}
    places = {"raw": raw, "preprocessed": folder / "preprocessed", "results": folder / "results"}
    clean |= {f"nnUNet_{name}": str(place) for name, place in places.items()}

    def call(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "segplug", *arguments],
            cwd=folder,
            env=clean,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def read_nifti(path: Path) -> Image:
    """With the reader that segplug has for it."""
    image: Image = next(iter(conformance("readers", "SimpleITKIO"))).subject.build()([path])
    return image


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Segplug]]:
    """The sample as it is and as OME-Zarr, prepared and trained for a moment."""
    found = {}
    for kind in ("nifti", "zarr"):
        folder = tmp_path_factory.mktemp(kind)
        shutil.copytree(sample_root() / DATASET, folder / "raw" / DATASET)
        if kind == "zarr":
            convert(folder / "raw" / DATASET)
        segplug = caller(folder, folder / "raw")
        segplug("prepare", "4", "--planner", "compact", "-c", "3d_fullres", "--workers", "0")
        segplug("train", "4", "3d_fullres", "0", *FEW, *ON_CPU)
        found[kind] = folder, segplug
    return found


def convert(dataset: Path) -> None:
    """Every NIfTI file of a data set to an OME-Zarr folder of the same numbers, labels of Zarr 3, images of Zarr 2."""
    for path in sorted(dataset.glob("*/*.nii.gz")):
        image = read_nifti(path)
        new = path.with_name(path.name.replace(".nii.gz", ".ome.zarr"))
        if path.parent.name.startswith("labels"):
            write_ome_zarr(new, Labels(image.array[0].astype(np.int32), image.geometry))
        else:
            write_image(new, image)
        path.unlink()
    file = dataset / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "file_ending": ".ome.zarr"}))


def write_image(path: Path, image: Image) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=image.array[0], chunks=(16, 16, 16))
    steps = [
        {"type": "scale", "scale": [each * 1000 for each in image.spacing]},
        {"type": "translation", "translation": [each * 1000 for each in reversed(image.geometry.origin)]},
    ]
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    group.attrs.put({"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]})


def test_fingerprint_and_plan_are_the_same(folders: dict[str, tuple[Path, Segplug]]) -> None:
    found = []
    for folder, _ in folders.values():
        fingerprint = json.loads((folder / "preprocessed" / DATASET / "dataset_fingerprint.json").read_text())
        plans = json.loads((folder / "preprocessed" / DATASET / "segplugCompactPlans.json").read_text())
        assert plans["image_reader_writer"] == ("ome_zarr" if "zarr" in folder.name else "SimpleITKIO")
        found.append(
            {
                **{key: fingerprint[key] for key in ("spacings", "shapes_after_crop")},
                "intensities": fingerprint["foreground_intensity_properties_per_channel"],
                "configuration": {
                    k: v for k, v in plans["configurations"]["3d_fullres"].items() if k != "architecture"
                },
            }
        )
    assert found[0] == found[1]


def test_predictions_are_the_same(folders: dict[str, tuple[Path, Segplug]]) -> None:
    """By the same network, as 1 epoch of other data would tell little: that of the NIfTI files, moved to OME-Zarr."""
    (nifti, _), (other, by_zarr) = folders["nifti"], folders["zarr"]
    weights = "fold_0/checkpoint_final.pth"
    shutil.copyfile(nifti / MODEL / weights, other / MODEL / weights)
    for folder, segplug in folders.values():
        for image in sorted((folder / "raw" / DATASET / "imagesTr").iterdir())[:3]:
            (shutil.copytree if image.is_dir() else shutil.copyfile)(image, made(folder / "few") / image.name)
        segplug("predict", "-i", "few", "-o", "out", "-m", str(folder / MODEL), "-f", "0", *ON_CPU)
    written = sorted(p.name for p in (other / "out").glob("*.ome.zarr"))
    assert len(written) == len(list((nifti / "out").glob("*.nii.gz")))
    for name in written:
        expected = read_nifti(nifti / "out" / name.replace(".ome.zarr", ".nii.gz"))
        found = ome_zarr([other / "out" / name])
        np.testing.assert_array_equal(found.array, expected.array)
        np.testing.assert_allclose(found.spacing, expected.spacing)
        group = zarr.open_group(other / "out" / name, mode="r")
        assert group.attrs["image-label"]["version"] == "0.4"  # as the image
    assert len(written) == 3
    said = by_zarr("predict", "-i", "few", "-o", "out", "-m", str(other / MODEL), "-f", "0", *ON_CPU, "--continue")
    assert "kept" in said


def test_verification_reads_folders(folders: dict[str, tuple[Path, Segplug]]) -> None:
    _, segplug = folders["zarr"]
    said = segplug("dataset", "verify", "4", "--workers", "0")
    assert "error" not in said.lower().replace("no errors", "").replace("0 errors", "")
