"""Each effect equals that of nnunetv2 for the same parameters; for how these are drawn see the tests of the chain."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from segplug_builtin.augmentations import intensity, resolution
from segplug_builtin.augmentations.geometry import affine_matrix, geometry_of
from segplug_builtin.augmentations.spatial import move

pytestmark = pytest.mark.parity

SCRIPT = Path(__file__).with_name("peer_augmentation.py")
TURNED = [(24, 30, 28), (21, 33, 40), (32, 32, 32), (50, 40), (31, 33), (6, 40, 44)]
ROWS = [(20, 24, 22), (64, 50), (5, 40, 44)]
PATCHES = [(20, 24, 22), (128, 128, 128), (40, 56, 40), (96, 160, 160), (33, 20, 70), (40, 36), (512, 511), (31, 33)]


def smooth(random: np.random.Generator, *shape: int, sigma: float = 1.5) -> Any:
    return ndimage.gaussian_filter(random.normal(size=shape), (0, *[sigma] * (len(shape) - 1)))


def make_inputs() -> dict[str, Any]:
    random = np.random.default_rng(0)
    given: dict[str, Any] = {"turns": 0, "rows": len(ROWS), "patches": len(PATCHES)}
    for patch in TURNED:
        geometry = geometry_of(patch)
        plane = geometry.turned_axes
        for turn in range(5):
            number = given["turns"]
            angles = random.uniform(-geometry.rotation, geometry.rotation, 1 if plane == 2 else 3)
            source = geometry.source_size
            labels = np.digitize(smooth(random, 1, *source), [-0.05, 0, 0.05, 0.06]).astype(np.int16)
            labels[:, :2] = -1
            image = smooth(random, 2, *source).astype(np.float32)
            given[f"image_{number}"] = image.reshape(-1, *source[-plane:])
            given[f"labels_{number}"] = labels.reshape(-1, *source[-plane:])
            given[f"angles_{number}"] = angles * (turn > 0)
            given[f"scale_{number}"], given[f"size_{number}"] = random.uniform(0.7, 1.4), patch[-plane:]
            given["turns"] = number + 1
    for number, shape in enumerate(ROWS):
        given[f"row_{number}"] = (10 + 3 * smooth(random, 3, *shape, sigma=1)).astype(np.float32)
        given[f"value_{number}"] = random.uniform(0.7, 1.3, 3)
        given[f"sigma_{number}"] = random.uniform(0.5, 1, (3, len(shape)))
    for number, patch in enumerate(PATCHES):
        geometry = geometry_of(patch)
        given[f"patch_{number}"], given[f"rotation_{number}"] = patch, geometry.rotation
    return given


@pytest.fixture(scope="module")
def pair(peer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """What was given to nnunetv2, and what it made of it."""
    folder = tmp_path_factory.mktemp("peer")
    given = make_inputs()
    np.savez(folder / "in.npz", **given)
    environment = {f"nnUNet_{name}": str(folder) for name in ("raw", "preprocessed", "results")}
    command = [str(peer), str(SCRIPT), str(folder / "in.npz"), str(folder / "out.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return given, np.load(folder / "out.npz")


def test_turning_and_scaling(pair: tuple[dict[str, Any], Any], parity: Any) -> None:
    given, made = pair
    for number in range(given["turns"]):
        patch = TURNED[number // 5]
        geometry = geometry_of(patch)
        angles, scale = given[f"angles_{number}"].tolist(), given[f"scale_{number}"]
        arrays = (given[f"{name}_{number}"] for name in ("image", "labels"))
        whole = [torch.from_numpy(a.reshape(1, -1, *geometry.source_size)) for a in arrays]
        matrix = affine_matrix(angles, scale) if any(angles) else scale * np.eye(geometry.turned_axes)
        image, labels = move(*whole, [{"affine": matrix}], geometry)
        apart = np.abs(image.numpy().ravel() - made[f"image_{number}"].ravel()).max()
        parity("turning and scaling by given parameters: images", 1, apart, 1e-5, section="Augmentation")
        differing = (labels.numpy().ravel() != made[f"labels_{number}"].ravel()).mean()
        # an unturned odd patch in an even source has whole planes halfway between voxels, where rounding decides
        kind = "turning" if any(angles) else "scaling alone"
        allowed = 0 if any(angles) else 0.005
        parity(f"{kind} by given parameters: labels, voxels that differ", 1, differing, allowed, section="Augmentation")


def test_intensities_and_resolution(pair: tuple[dict[str, Any], Any], parity: Any) -> None:
    given, made = pair

    def close(what: str, found: torch.Tensor, expected: Any) -> None:
        apart = np.abs(found.numpy() - expected).max()
        parity(f"{what} by given parameters: images, of a range of about 10", 1, apart, 1e-5, section="Augmentation")

    for number in range(given["rows"]):
        rows, values = torch.from_numpy(given[f"row_{number}"]), given[f"value_{number}"]
        by = torch.from_numpy(values).float()
        blurred = resolution.blur(rows.clone(), given[f"sigma_{number}"])
        close("blur", blurred, made[f"blur_{number}"])
        lower = resolution.lower_resolution(rows.clone(), np.minimum(values, 1))
        close("low resolution", lower, made[f"lower_{number}"])
        changed = rows.clone()
        intensity.stretch_contrast(changed, by)
        close("contrast", changed, made[f"contrast_{number}"])
        for inverted in (0, 1):
            changed = rows.clone()
            intensity.apply_gamma(changed, by, bool(inverted))
            close("inverted gamma" if inverted else "gamma", changed, made[f"gamma_{number}_{inverted}"])


def test_size_of_the_source(pair: tuple[dict[str, Any], Any], parity: Any) -> None:
    for number, patch in enumerate(PATCHES):
        wanted = pair[1][f"initial_{number}"]
        differing = int((np.array(geometry_of(patch).source_size) != wanted).sum())
        parity(
            "size of the region that patches are cut from: axes that differ", 1, differing, 0, section="Augmentation"
        )
