"""nnunetv2's own chain of transforms beside segplug's augmentation: settings, order, each transform, the whole.

- Settings: probabilities and ranges are read off the transforms that nnunetv2 made.
- Order: with everything that is random fixed to the same values, both chains make the same sample (the transforms do
  not commute).
- Each transform alone: how often it happens to which channels, and what it then does. Turns and scales are measured on
  ramps (the coordinates themselves), intensities on a texture.
- The whole chain, on labelled images with voxels outside of the nonzero mask.

Distributions are compared by two-sample tests (Kolmogorov-Smirnov; chi-square for counts) with fixed seeds; the level
is stated in the fixture `same_distribution`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import chi2_contingency, ks_2samp

from segplug.model import LabelSet
from segplug.protocols import AugmentationContext, Batch, Parameters
from segplug.runtime.randomness import generator
from segplug.runtime.training_targets import downsample, encode_regions, valid_voxels
from segplug_builtin.augmentations.drawing import Effects, draw_sample
from segplug_builtin.augmentations.geometry import affine_matrix, geometry_of
from segplug_builtin.augmentations.nnunet import NNUNetAugmentation

pytestmark = pytest.mark.parity

SCRIPT = Path(__file__).with_name("peer_chain.py")
PATCHES = {"3D": (12, 14, 16), "dummy 2D": (4, 16, 14), "2D": (20, 18), "long 2D": (40, 18)}
TRANSFORMS = {
    "SpatialTransform": ("rotation", "scaling"),
    "GaussianNoiseTransform": ("noise",),
    "GaussianBlurTransform": ("blur",),
    "MultiplicativeBrightnessTransform": ("brightness",),
    "ContrastTransform": ("contrast",),
    "SimulateLowResolutionTransform": ("low_resolution",),
    "InvertedGamma": ("inverted_gamma",),
    "Gamma": ("gamma",),
    "MirrorTransform": ("mirror",),
}
"""nnunetv2's transforms, in its order, and the effects that they are here."""
RANDOM = [name for names in TRANSFORMS.values() for name in names]
REGIONS = {"background": 0, "whole": (1, 2, 3), "core": (2, 3), "tip": 3}
NOISE = (0.07, 11)
SECTION = "Augmentation"
Pair = tuple[dict[str, Any], dict[str, Any]]
"""What was given to nnunetv2, and what it made of it."""


def load_script() -> Any:
    """The script as a module: samples of both programs are measured by the same code."""
    spec = spec_from_file_location("peer_chain", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MEASURES = load_script()


def smooth(random: np.random.Generator, *shape: int, sigma: float) -> Any:
    return ndimage.gaussian_filter(random.normal(size=shape), (0, *[sigma] * (len(shape) - 1)))


def centre(source: Any, patch: Sequence[int]) -> Any:
    starts = [whole // 2 - part // 2 for whole, part in zip(source.shape[1:], patch, strict=True)]
    return source[(slice(None), *(slice(at, at + part) for at, part in zip(starts, patch, strict=True)))]


def make_inputs() -> dict[str, Any]:
    given: dict[str, Any] = {"patches": len(PATCHES), "transforms": list(TRANSFORMS)}
    for number, patch in enumerate(PATCHES.values()):
        random = np.random.default_rng(number)
        geometry = geometry_of(patch)
        source, axes = geometry.source_size, len(patch)
        scales = np.meshgrid(*(np.arange(size) - (size - 1) / 2 for size in source), indexing="ij")
        labels = np.digitize(smooth(random, 1, *source, sigma=1.5), [0, 0.04, 0.08, 0.12]).astype(np.int16)
        labels[:, :, :4] = -1
        target = np.digitize(smooth(random, 1, *source, sigma=3), [0.01, 0.04]).astype(np.int16)
        target[:, :, :4] = -1
        texture = random.normal(size=(2, *source)) + 2 * smooth(random, 2, *source, sigma=2)
        made: dict[str, Any] = {
            "patch": patch,
            "rotation": geometry.rotation,
            "dummy": geometry.dummy_2d,
            "ramps": np.stack(scales),
            "nothing": np.zeros((1, *source), np.int16),
            "texture": texture,
            "texture_patch": centre(texture, patch),
            "source": smooth(random, 2, *source, sigma=2),
            "target": target,
            "image": 5 * smooth(random, 2, *source, sigma=1.5) + 1,
            "labels": labels,
            "angles": random.uniform(0.5, 1, 1 if geometry.turned_axes == 2 else 3) * geometry.rotation,
            "scale": 0.9,
            "blur": random.uniform(0.5, 1, (2, axes)),
            "mirror": [True, *[False] * (axes - 2), True],
        }
        made |= {name: random.uniform(1.1, 1.25, 2) for name in ("brightness", "contrast")}
        made |= {"low_resolution": np.array([0.6, 0.8]), "inverted_gamma": [0.8, 1.3], "gamma": [1.4, 0.75]}
        noise = torch.empty(2, *patch).normal_(0, NOISE[0], generator=torch.Generator().manual_seed(NOISE[1]))
        for name, value in (*made.items(), ("noise", noise.numpy())):
            array = np.asarray(value)
            image = array.ndim > 3 or (array.ndim == 3 and axes == 2)
            given[f"{name}_{number}"] = array.astype(np.float32) if image and array.dtype == float else array
    return given


@pytest.fixture(scope="module")
def pair(peer: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("peer")
    given = make_inputs()
    np.savez(folder / "in.npz", **given)
    environment = {f"nnUNet_{name}": str(folder) for name in ("raw", "preprocessed", "results")}
    command = [str(peer), str(SCRIPT), str(folder / "in.npz"), str(folder / "out.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return given, dict(np.load(folder / "out.npz"))


def augmented(
    patch: Sequence[int], image: Any, labels: Any, parameters: Sequence[Parameters], masked: Sequence[bool] = ()
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One image and its labels, by each of the parameters; in batches of at most 100."""
    augmentation = NNUNetAugmentation(AugmentationContext(tuple(patch), len(image), tuple(masked)))
    for first in range(0, len(parameters), 100):
        part = parameters[first : first + 100]
        data = torch.from_numpy(image).expand(len(part), *image.shape)
        target = torch.from_numpy(labels).expand(len(part), *labels.shape)
        done = augmentation(Batch(data, target), part)
        yield from zip(done.data, done.target, strict=True)


def only(names: Sequence[str]) -> Effects:
    return Effects(**{name: 0.0 for name in RANDOM if name not in names})


def draw(patch: Sequence[int], channels: int, effects: Effects, count: int, *key: int) -> list[Parameters]:
    geometry = geometry_of(patch)
    axes = geometry.mirror_axes if effects.mirror else ()
    return [draw_sample(generator(3, *key, i), geometry, channels, axes, effects) for i in range(count)]


# --- settings and order ---------------------------------------------------------------------------------------------


def expected(patch: Sequence[int]) -> list[tuple[str, dict[str, Any]]]:
    """nnunetv2's transforms in order, with what is to be found in them if segplug does the same."""
    effects, geometry = Effects(), geometry_of(patch)
    per_channel = {"synchronize_channels": False, "p_per_channel": 1}
    gamma = {**per_channel, "gamma": {"around one": list(effects.gamma_range)}, "p_retain_stats": 1}
    spatial = {
        "patch_size": list(geometry.patch_size[-geometry.turned_axes :]),
        "p_rotation": effects.rotation,
        "rotation": [-geometry.rotation, geometry.rotation],
        "p_rot_per_axis": 1,
        "p_scaling": effects.scaling,
        "scaling": list(effects.scaling_range),
        "p_synchronize_scaling_across_axes": 1,
        "p_elastic_deform": 0,
        "random_crop": False,
    }
    noise = {
        "probability": effects.noise,
        "noise_variance": list(effects.noise_std),  # of its name; it is used as the standard deviation
        "synchronize_channels": True,
        "p_per_channel": 1,
    }
    blur = {
        "probability": effects.blur,
        "blur_sigma": list(effects.blur_sigma),
        "p_per_channel": effects.blur_channel,
        "synchronize_channels": False,
        "synchronize_axes": False,
    }
    brightness = {"probability": effects.brightness, "multiplier_range": {"around one": [*effects.brightness_range]}}
    contrast = {"probability": effects.contrast, "contrast_range": {"around one": [*effects.contrast_range]}}
    lower = {
        "probability": effects.low_resolution,
        "scale": list(effects.low_resolution_zoom),
        "p_per_channel": effects.low_resolution_channel,
        "synchronize_channels": False,
        "synchronize_axes": True,
        "ignore_axes": [0] if geometry.dummy_2d else None,
    }
    return [
        *([("Convert3DTo2DTransform", {})] if geometry.dummy_2d else []),
        ("SpatialTransform", spatial),
        *([("Convert2DTo3DTransform", {})] if geometry.dummy_2d else []),
        ("GaussianNoiseTransform", noise),
        ("GaussianBlurTransform", blur),
        ("MultiplicativeBrightnessTransform", {**per_channel, **brightness}),
        ("ContrastTransform", {**per_channel, **contrast, "preserve_range": True}),
        ("SimulateLowResolutionTransform", lower),
        ("GammaTransform", {**gamma, "probability": effects.inverted_gamma, "p_invert_image": 1}),
        ("GammaTransform", {**gamma, "probability": effects.gamma, "p_invert_image": 0}),
        ("MirrorTransform", {"allowed_axes": list(geometry.mirror_axes)}),
        ("MaskImageTransform", {"apply_to_channels": [0], "channel_idx_in_seg": 0, "set_outside_to": 0}),
        ("RemoveLabelTransform", {"label_value": -1, "set_to": 0}),
    ]


@pytest.mark.parametrize("number", range(len(PATCHES)), ids=PATCHES)
def test_settings(pair: Pair, parity: Any, number: int) -> None:
    found = json.loads(str(pair[1][f"described_{number}"]))
    wanted = expected(list(PATCHES.values())[number])
    assert [each["name"] for each in found] == [name for name, _ in wanted]
    differing = [
        (name, key, transform[key], value)
        for transform, (name, settings) in zip(found, wanted, strict=True)
        for key, value in settings.items()
        if transform[key] != value
    ]
    assert not differing
    counted = sum(len(settings) for _, settings in wanted)
    parity("order, probabilities and ranges of the transforms, settings", counted, 0, 0, section=SECTION)


@pytest.mark.parametrize("number", range(len(PATCHES)), ids=PATCHES)
def test_order(pair: Pair, parity: Any, number: int) -> None:
    """All transforms with given parameters: the same image, and the same targets of labels, regions, ignore label."""
    patch = list(PATCHES.values())[number]
    given = {key.removesuffix(f"_{number}"): value for key, value in pair[0].items() if key.endswith(f"_{number}")}
    names = ("blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma", "mirror")
    drawn = {name: np.asarray(given[name]) for name in names}
    affine = affine_matrix(given["angles"].tolist(), given["scale"])
    parameters = {**drawn, "affine": affine, "noise": NOISE, "needed": geometry_of(patch).source_size}
    ((image, target),) = augmented(patch, given["image"], given["labels"], [parameters], (True, False))
    for kind in ("labels", "regions", "ignore"):
        apart = np.abs(image.numpy() - pair[1][f"image_{kind}_{number}"]).max()
        parity("whole chain by given parameters: images, of a range of about 8", 1, apart, 1e-4, section=SECTION)
        labels = LabelSet({**(REGIONS if kind != "labels" else {}), **({"ignore": 4} if kind == "ignore" else {})})
        for level in range(2):
            theirs = torch.from_numpy(pair[1][f"target_{kind}_{level}_{number}"])
            mine = downsample(target[None], theirs.shape[1:])
            wanted = mine[0]
            if kind != "labels":
                valid = valid_voxels(mine, labels)
                wanted = torch.cat((encode_regions(mine, labels), *([] if valid is None else [~valid])), 1)[0] > 0
            differing = int((wanted != theirs).sum())
            parity("whole chain by given parameters: targets, voxels that differ", 1, differing, 0, section=SECTION)


# --- distributions --------------------------------------------------------------------------------------------------


def same_values(first: Any, second: Any) -> float:
    """p of the Kolmogorov-Smirnov test, with values that differ by rounding alone counted as one."""
    pooled = np.concatenate([first, second])
    order = np.argsort(pooled, kind="stable")
    rank = np.empty(len(pooled))
    rank[order] = np.cumsum(np.diff(pooled[order], prepend=pooled[order[0]]) > 2e-6)
    return float(ks_2samp(rank[: len(first)], rank[len(first) :], method="asymp").pvalue)


def same_counts(first: Any, second: Any) -> float:
    """p of the chi-square test of what happened how often; rows are tuples of bool or small numbers."""
    kinds, which = np.unique(np.concatenate([first, second]), axis=0, return_inverse=True)
    which = which.ravel()
    counts = [np.bincount(part, minlength=len(kinds)) for part in (which[: len(first)], which[len(first) :])]
    return 1.0 if len(kinds) == 1 else float(chi2_contingency(counts).pvalue)


def turned(numbers: Any) -> dict[str, Any]:
    """Angles, scale and what happened, of slopes (samples, axes * axes) in the middle of ramps."""
    axes = int(np.sqrt(numbers.shape[1]))
    matrices = numbers.reshape(-1, axes, axes)
    scale = np.abs(np.linalg.det(matrices)) ** (1 / axes)
    turns = matrices / scale[:, None, None]
    assert np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(axes)).max() < 1e-4  # one scale for all axes
    angles = {"angle": np.arctan2(turns[:, 1, 0], turns[:, 0, 0])}
    if axes == 3:
        angles = {
            "first angle": np.arctan2(turns[:, 2, 1], turns[:, 2, 2]),
            "second angle": -np.arcsin(turns[:, 2, 0]),
            "third angle": angles["angle"],
        }
    happened = np.stack([np.abs(turns - np.eye(axes)).max((1, 2)) > 1e-4, np.abs(scale - 1) > 1e-4], 1)
    return {"happened": happened, "scale": scale, **angles}


@pytest.mark.parametrize("number", range(len(PATCHES)), ids=PATCHES)
def test_turning_and_scaling(pair: Pair, same_distribution: Any, number: int) -> None:
    patch = list(PATCHES.values())[number]
    geometry = geometry_of(patch)
    ramps, nothing = pair[0][f"ramps_{number}"], pair[0][f"nothing_{number}"]
    parameters = draw(patch, len(patch), only(TRANSFORMS["SpatialTransform"]), MEASURES.SAMPLES, number, 0)
    done = [MEASURES.slopes(image.numpy()) for image, _ in augmented(patch, ramps, nothing, parameters)]
    plane = slice(-geometry.turned_axes, None)

    def in_plane(numbers: Any) -> dict[str, Any]:
        matrices = np.asarray(numbers).reshape(len(numbers), len(patch), len(patch))
        if geometry.dummy_2d:
            assert np.abs(matrices[:, 0] - [1, 0, 0]).max() < 1e-4
            assert np.abs(matrices[:, :, 0] - [1, 0, 0]).max() < 1e-4
        return turned(matrices[:, plane, plane].reshape(len(numbers), -1))

    mine, theirs = in_plane(done), in_plane(pair[1][f"SpatialTransform_{number}"])
    found = {"happened": same_counts(mine["happened"], theirs["happened"])}
    for name in mine.keys() - {"happened"}:
        found[name] = same_values(mine[name], theirs[name])
        assert np.abs(mine[name]).max() == pytest.approx(np.abs(theirs[name]).max(), rel=0.02)
    same_distribution("turning and scaling: how often, angles, scale", found, section=SECTION)


@pytest.mark.parametrize("number", range(len(PATCHES)), ids=PATCHES)
def test_mirroring(pair: Pair, same_distribution: Any, number: int) -> None:
    patch = list(PATCHES.values())[number]
    ramps, nothing = pair[0][f"ramps_{number}"], pair[0][f"nothing_{number}"]
    parameters = draw(patch, len(patch), only(TRANSFORMS["MirrorTransform"]), MEASURES.SAMPLES, number, 1)
    done = np.array([MEASURES.slopes(image.numpy()) for image, _ in augmented(patch, ramps, nothing, parameters)])
    theirs = pair[1][f"MirrorTransform_{number}"]
    for numbers in (done, theirs):
        assert len(np.unique(numbers.round(3), axis=0)) == 2 ** len(patch)  # each axis by itself, and nothing else
    found = {"axes": same_counts(done.round(3), theirs.round(3))}
    same_distribution("mirroring: which axes together", found, section=SECTION)


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name not in ("SpatialTransform", "MirrorTransform")])
@pytest.mark.parametrize("number", range(len(PATCHES)), ids=PATCHES)
def test_intensities(pair: Pair, same_distribution: Any, number: int, name: str) -> None:
    """How often to which channels; and of changed channels the change, deviation, range, skew and edges."""
    patch, (effect,) = list(PATCHES.values())[number], TRANSFORMS[name]
    texture, nothing, before = (pair[0][f"{key}_{number}"] for key in ("texture", "nothing", "texture_patch"))
    parameters = draw(patch, 2, only([effect]), MEASURES.SAMPLES, number, 2 + RANDOM.index(effect))
    images = augmented(patch, texture, nothing, parameters)
    both = [np.array([MEASURES.measure(image.numpy(), before) for image, _ in images]), pair[1][f"{name}_{number}"]]
    both = [numbers.reshape(len(numbers), 2, -1) for numbers in both]  # of each channel
    changed = [np.abs(numbers[:, :, :2]).max(2) > 1e-6 for numbers in both]
    assert all(100 < part.sum() < part.size for part in changed)
    found = {"channels": same_counts(*changed)}
    for channel in range(2):
        mine, theirs = (each[part[:, channel], channel] for each, part in zip(both, changed, strict=True))
        for kind in range(mine.shape[1]):
            found[f"channel {channel}, number {kind}"] = same_values(mine[:, kind], theirs[:, kind])
    together = [numbers[part.all(1)][:, :, 1] for numbers, part in zip(both, changed, strict=True)]
    found["channels apart"] = same_values(*(np.log(part[:, 0] / part[:, 1]) for part in together))
    same_distribution(f"{effect.replace('_', ' ')}: how often, and its effects", found, section=SECTION)


@pytest.mark.parametrize("number", range(len(PATCHES)), ids=PATCHES)
def test_whole_chain(pair: Pair, same_distribution: Any, number: int) -> None:
    """Of the augmentation as it is used: drawn by itself, on regions as small as it asks for."""
    patch = list(PATCHES.values())[number]
    source, target = (pair[0][f"{key}_{number}"] for key in ("source", "target"))
    augmentation = NNUNetAugmentation(AugmentationContext(patch, 2, (True, False)))
    numbers = []
    for sample in range(MEASURES.SAMPLES):
        parameters = augmentation.draw(generator(1, sample))
        size = augmentation.needed_size(parameters)
        data, labels = (torch.from_numpy(np.ascontiguousarray(centre(each, size)))[None] for each in (source, target))
        done = augmentation(Batch(data, labels), [parameters])
        assert done.target.min() >= 0
        numbers.append(MEASURES.whole(done.data[0].numpy(), done.target[0, 0].numpy()))
    mine, theirs = np.array(numbers), pair[1][f"whole_{number}"]
    found = {str(kind): same_values(mine[:, kind], theirs[:, kind]) for kind in range(mine.shape[1])}
    same_distribution("whole chain: intensities, edges, labels' places and volumes, masks", found, section=SECTION)
