"""Phantom data sets in nnU-Net's raw layout: bodies of ellipsoids whose labels a small network can learn.

Everything is a pure function of the seed. Written with SimpleITK, tifffile and Pillow alone, so that tests of segplug's
own writers do not depend on segplug's writers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORE = "ignore"


@dataclass(frozen=True)
class Phantom:
    """What a phantom data set looks like.

    Args:
        shape: (z, y, x) of the first case; the others differ by up to a tenth per axis. For 2D images z is 1.
        spacing: (z, y, x) of the first case; the others' differ by the factor `spacing_spread` at most.
        channels: channel names; a channel named CT holds Hounsfield-like values, others are zero outside the body.
        classes: how many organs there are, labelled from 1.
        regions: overlapping regions as labels ("all organs", "organs 2 and up", ...) rather than plain labels.
        ignored: share of slices left without annotation (label `classes + 1`, named ignore); 0 for none.
        empty: numbers of the cases that show no organ, only the body.
        file_ending: `.nii.gz`, `.nrrd`, `.mha`, `.tif` (stack with a spacing file) or `.png` (2D).
    """

    shape: tuple[int, int, int] = (24, 36, 32)
    spacing: tuple[float, float, float] = (1.5, 1.0, 1.0)
    spacing_spread: float = 1.0
    channels: tuple[str, ...] = ("MRI",)
    classes: int = 2
    regions: bool = False
    ignored: float = 0.0
    empty: tuple[int, ...] = ()
    file_ending: str = ".nii.gz"


def write_phantom_dataset(
    folder: Path, phantom: Phantom = Phantom(), *, cases: int = 6, test_cases: int = 0, seed: int = 0
) -> Path:
    """Write `folder` (named `DatasetXXX_NAME`) with `cases` training cases in imagesTr and labelsTr.

    Args:
        test_cases: further cases written to imagesTs and labelsTs.

    Returns:
        The folder.
    """
    for number in range(cases + test_cases):
        part = "Tr" if number < cases else "Ts"
        image, labels, spacing = make_case(phantom, seed=seed, number=number)
        name = f"phantom_{number:03d}"
        _write_case(
            folder / f"images{part}", folder / f"labels{part}", name, image, labels, spacing, phantom.file_ending
        )
    description = {
        "channel_names": {str(i): name for i, name in enumerate(phantom.channels)},
        **_labels_entry(phantom),
        "numTraining": cases,
        "file_ending": phantom.file_ending,
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1))
    return folder


def make_case(
    phantom: Phantom, *, seed: int = 0, number: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.uint8], tuple[float, float, float]]:
    """One case in memory: image (channels, z, y, x), labels (z, y, x) and spacing (z, y, x)."""
    random = np.random.default_rng([seed, number])
    vary = random.uniform(0.9, 1.1, 3) if number else np.ones(3)
    shape = tuple(int(max(1, round(n * f))) if n > 1 else 1 for n, f in zip(phantom.shape, vary, strict=True))
    factor = phantom.spacing_spread ** random.uniform(-1, 1) if number else 1.0
    spacing = tuple(float(np.round(s * factor, 4)) for s in phantom.spacing)
    body = _ellipsoid(shape, centre=(0.5, 0.5, 0.5), radii=(0.48, 0.42, 0.42))
    labels = np.zeros(shape, np.uint8)
    for label in range(1, phantom.classes + 1) if number not in phantom.empty else ():
        angle = 2 * np.pi * (label / phantom.classes) + random.uniform(-0.3, 0.3)
        centre = (0.5 + random.uniform(-0.08, 0.08), 0.5 + 0.2 * np.sin(angle), 0.5 + 0.2 * np.cos(angle))
        radii = random.uniform(0.11, 0.16, 3) * (1.4, 1.0, 1.0)
        labels[_ellipsoid(shape, centre, tuple(radii)) & body] = label
    image = np.stack([_intensities(name, i, labels, body, random) for i, name in enumerate(phantom.channels)])
    if phantom.ignored:
        unseen = random.random(shape[0]) < phantom.ignored
        unseen[int(random.integers(shape[0]))] = False
        labels[unseen] = phantom.classes + 1
    return image, labels, (spacing[0], spacing[1], spacing[2])


def _labels_entry(phantom: Phantom) -> dict[str, Any]:
    labels: dict[str, int | list[int]] = {"background": 0}
    numbers = list(range(1, phantom.classes + 1))
    for number in numbers:
        labels[f"organs_{number}_up" if phantom.regions else f"organ_{number}"] = (
            numbers[number - 1 :] if phantom.regions else number
        )
    if phantom.ignored:
        labels[IGNORE] = phantom.classes + 1
    return {"labels": labels} | ({"regions_class_order": numbers} if phantom.regions else {})


def _ellipsoid(shape: Sequence[int], centre: Sequence[float], radii: Sequence[float]) -> NDArray[np.bool_]:
    """Voxels within an ellipsoid; centre and radii as shares of the shape. An axis of one voxel does not count."""
    distance: Any = 0.0
    for axis, (n, c, r) in enumerate(zip(shape, centre, radii, strict=True)):
        if n > 1:
            place = ((np.arange(n) + 0.5) / n - c) / r
            distance = distance + (place**2).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(distance <= 1.0, tuple(shape))


def _intensities(
    channel: str, index: int, labels: NDArray[np.uint8], body: NDArray[np.bool_], random: np.random.Generator
) -> NDArray[np.float32]:
    noise = random.standard_normal(labels.shape).astype(np.float32)
    if channel == "CT":
        hounsfield: NDArray[np.float32] = np.where(body, 40.0, -1000.0).astype(np.float32)
        hounsfield += (labels > 0) * (60.0 + 70.0 * labels) + 15.0 * noise
        return np.round(hounsfield).astype(np.float32)
    gain = random.uniform(0.8, 1.25)
    organs = body.astype(np.float32) * (100.0 + ((labels + index) % (int(labels.max()) + 1)) * 60.0 + 12.0 * noise)
    return np.clip(np.round(gain * organs), 0, 255).astype(np.float32)


def _write_case(
    images: Path,
    references: Path,
    name: str,
    image: NDArray[np.float32],
    labels: NDArray[np.uint8],
    spacing: tuple[float, float, float],
    ending: str,
) -> None:
    images.mkdir(parents=True, exist_ok=True)
    references.mkdir(parents=True, exist_ok=True)
    if ending == ".png":
        from PIL import Image as Picture

        for channel, plane in enumerate(image[:, 0]):
            Picture.fromarray(np.clip(plane, 0, 255).astype(np.uint8)).save(images / f"{name}_{channel:04d}.png")
        Picture.fromarray(labels[0]).save(references / f"{name}.png")
    elif ending in {".tif", ".tiff"}:
        import tifffile

        for channel, volume in enumerate(image):
            tifffile.imwrite(images / f"{name}_{channel:04d}{ending}", volume)
        tifffile.imwrite(references / f"{name}{ending}", labels)
        for folder in (images, references):
            (folder / f"{name}.json").write_text(json.dumps({"spacing": list(spacing)}))
    else:
        write_volumes(
            {images / f"{name}_{channel:04d}{ending}": volume for channel, volume in enumerate(image)}, spacing
        )
        write_volumes({references / f"{name}{ending}": labels}, spacing)


def write_volumes(files: Mapping[Path, NDArray[Any]], spacing: Sequence[float]) -> None:
    """Write arrays (z, y, x) with SimpleITK, in a tilted orientation and away from the origin, as scanners do."""
    import SimpleITK as sitk

    turn = np.deg2rad(7.0)
    direction = [np.cos(turn), -np.sin(turn), 0.0, np.sin(turn), np.cos(turn), 0.0, 0.0, 0.0, 1.0]
    for path, array in files.items():
        itk = sitk.GetImageFromArray(array)
        itk.SetSpacing([float(s) for s in reversed(list(spacing))])
        itk.SetOrigin([-80.5, 12.25, 40.0])
        itk.SetDirection(direction)
        sitk.WriteImage(itk, str(path), useCompression=True)
