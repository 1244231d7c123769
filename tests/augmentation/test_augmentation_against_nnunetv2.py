"""Effects equal those of nnunetv2 for the same parameters; parameters, patches and augmented samples are distributed
alike.

Distributions are compared by Kolmogorov-Smirnov tests of two samples, at a level of 1e-5 each on fixed seeds.
"""

from __future__ import annotations

import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import ks_2samp

from segplug.protocols import AugmentationContext, Batch
from segplug.runtime.patch_sampling import PatchRules, place_patch
from segplug.runtime.randomness import generator
from segplug_builtin.augmentations import intensity, resolution
from segplug_builtin.augmentations.drawing import Effects, draw_sample
from segplug_builtin.augmentations.geometry import affine_matrix, geometry_of
from segplug_builtin.augmentations.nnunet import NNUNetAugmentation
from segplug_builtin.augmentations.spatial import crop, move

pytestmark = pytest.mark.parity

LEVEL = 1e-5
SCRIPT = Path(__file__).with_name("peer_augmentation.py")
TURNED = [(24, 30, 28), (21, 33, 40), (32, 32, 32), (50, 40), (31, 33), (6, 40, 44)]
ROWS = [(20, 24, 22), (64, 50), (5, 40, 44)]
PATCHES = [(20, 24, 22), (6, 24, 26), (40, 36)]
PLACINGS = [(False, False), (True, False), (False, True), (True, True)]  # with an ignore label, forced foreground
SHAPE, SOURCE, PATCH = (20, 30, 25), (24, 40, 33), (16, 24, 20)


def smooth(random: np.random.Generator, *shape: int, sigma: float = 1.5) -> Any:
    return ndimage.gaussian_filter(random.normal(size=shape), (0, *[sigma] * (len(shape) - 1)))


def make_inputs() -> dict[str, Any]:
    random = np.random.default_rng(0)
    given: dict[str, Any] = {"turns": 0, "rows": len(ROWS), "patches": len(PATCHES), "placings": len(PLACINGS)}
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
        given[f"patch_{number}"], given[f"dummy_{number}"] = patch, geometry.dummy_2d
        given[f"rotation_{number}"] = geometry.rotation
        given[f"source_{number}"] = smooth(random, 2, *geometry.source_size, sigma=2).astype(np.float32)
        target = np.digitize(smooth(random, 1, *geometry.source_size, sigma=3), [0.01, 0.04]).astype(np.int16)
        target[:, :, :3] = -1
        given[f"target_{number}"] = target
    given |= {"shape": SHAPE, "source_size": SOURCE, "patch_size": PATCH}
    for name, count in (("1", 5), ("2", 40), ("annotated", 300)):
        given[f"voxels_{name}"] = random.integers(0, SHAPE, size=(count, 3))
    for number, (ignore, force) in enumerate(PLACINGS):
        given[f"ignore_{number}"], given[f"force_{number}"] = ignore, force
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


def alike(first: Any, second: Any) -> bool:
    return bool(ks_2samp(first, second).pvalue > LEVEL)


def test_turning_and_scaling(pair: tuple[dict[str, Any], Any]) -> None:
    given, made = pair
    for number in range(given["turns"]):
        patch = TURNED[number // 5]
        geometry = geometry_of(patch)
        angles, scale = given[f"angles_{number}"].tolist(), given[f"scale_{number}"]
        arrays = (given[f"{name}_{number}"] for name in ("image", "labels"))
        whole = [torch.from_numpy(a.reshape(1, -1, *geometry.source_size)) for a in arrays]
        matrix = affine_matrix(angles, scale) if any(angles) else scale * np.eye(geometry.turned_axes)
        image, labels = move(*whole, [{"affine": matrix}], geometry)
        assert np.abs(image.numpy().ravel() - made[f"image_{number}"].ravel()).max() < 1e-5
        differing = (labels.numpy().ravel() != made[f"labels_{number}"].ravel()).mean()
        # an unturned odd patch in an even source has whole planes halfway between voxels, where rounding decides
        assert differing == 0 or (not any(angles) and differing < 0.005)


def test_intensities_and_resolution(pair: tuple[dict[str, Any], Any]) -> None:
    given, made = pair
    for number in range(given["rows"]):
        rows, values = torch.from_numpy(given[f"row_{number}"]), given[f"value_{number}"]
        by = torch.from_numpy(values).float()
        blurred = resolution.blur(rows.clone(), given[f"sigma_{number}"])
        assert np.abs(blurred.numpy() - made[f"blur_{number}"]).max() < 1e-5
        lower = resolution.lower_resolution(rows.clone(), np.minimum(values, 1))
        assert np.abs(lower.numpy() - made[f"lower_{number}"]).max() < 1e-5
        changed = rows.clone()
        intensity.stretch_contrast(changed, by)
        assert np.abs(changed.numpy() - made[f"contrast_{number}"]).max() < 1e-5
        for inverted in (0, 1):
            changed = rows.clone()
            intensity.apply_gamma(changed, by, bool(inverted))
            assert np.abs(changed.numpy() - made[f"gamma_{number}_{inverted}"]).max() < 1e-5


def test_factors_are_distributed_alike(pair: tuple[dict[str, Any], Any]) -> None:
    geometry, random = geometry_of((8, 8, 8)), generator(5)
    drawn = [draw_sample(random, geometry, 1, (), Effects(gamma=1)) for _ in range(4000)]
    assert alike([float(each["gamma"][0]) for each in drawn], pair[1]["factors"])


def test_augmented_samples_are_distributed_alike(pair: tuple[dict[str, Any], Any]) -> None:
    given, made = pair
    script = _script()
    for number, patch in enumerate(PATCHES):
        augmentation = NNUNetAugmentation(AugmentationContext(patch, 2, (True, False)))
        if not given[f"dummy_{number}"]:
            assert augmentation.source_size() == tuple(made[f"initial_{number}"].tolist())
        whole = [torch.from_numpy(given[f"{name}_{number}"])[None] for name in ("source", "target")]
        numbers = []
        for sample in range(script.SAMPLES):
            parameters = augmentation.draw(generator(1, sample))
            data, target = (crop(each, augmentation.needed_size(parameters)) for each in whole)
            done = augmentation(Batch(data, target), [parameters])
            numbers.append(script.measure(done.data[0].numpy(), done.target[0, 0].numpy()))
        for ours, theirs in zip(np.array(numbers).T, made[f"measured_{number}"].T, strict=True):
            assert alike(ours.round(5), theirs.round(5))


def test_patches_are_placed_alike(pair: tuple[dict[str, Any], Any]) -> None:
    given, made = pair
    annotated = (-1, 0, 1, 2)
    locations: dict[Any, Any] = {1: given["voxels_1"], (1, 2): given["voxels_2"], annotated: given["voxels_annotated"]}
    for number, (ignore, force) in enumerate(PLACINGS):
        rules = PatchRules(SOURCE, PATCH, annotated if ignore else None)
        known = locations if ignore else {key: v for key, v in locations.items() if key != annotated}
        starts = np.array([place_patch(SHAPE, known, rules, force, generator(2, i)) for i in range(4000)])
        theirs = made[f"starts_{number}"]
        assert (starts.min(0) == theirs.min(0)).all()
        assert (starts.max(0) == theirs.max(0)).all()
        for axis in range(3):
            assert alike(starts[:, axis], theirs[:, axis])


def _script() -> Any:
    """The script as a module: samples of both programs are measured by the same code."""
    spec = spec_from_file_location("peer_augmentation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
