"""The stronger augmentation: what it draws, and what its local effects do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segplug.errors import PluginError
from segplug.kernel import Kernel
from segplug.model import ComponentRef
from segplug.protocols import AugmentationContext, Batch, Parameters
from segplug.runtime.randomness import generator
from segplug_builtin.augmentations.drawing_stronger import StrongEffects, draw_strong_sample, interchangeable_axes
from segplug_builtin.augmentations.geometry import geometry_of, mirrored_axes
from segplug_builtin.augmentations.local import Bump, add_gradient, apply_local_gamma, median, profile, sharpen
from segplug_builtin.augmentations.nearest import turn_nearest
from segplug_builtin.augmentations.stronger import StrongerAugmentation

PATCHES = [(14, 16, 14), (18, 18), (4, 18, 18), (12, 12, 12)]


def batch_for(augmentation: StrongerAugmentation, parameters: Sequence[Parameters], channels: int) -> Batch:
    size = [max(axis) for axis in zip(*map(augmentation.needed_size, parameters), strict=True)]
    random = np.random.default_rng(3)
    data = random.normal(2, 3, size=(len(parameters), channels, *size)).astype(np.float32)
    maps = random.integers(-1, 4, size=(2, len(parameters), 1, *size)).astype(np.int16)
    return Batch(torch.from_numpy(data), torch.from_numpy(maps[0]), previous=torch.from_numpy(maps[1]))


@given(patch=st.sampled_from(PATCHES), seed=st.integers(0, 2**31), channels=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_a_pure_function_of_the_parameters(patch: tuple[int, ...], seed: int, channels: int) -> None:
    augmentation = StrongerAugmentation(AugmentationContext(patch, channels, (True,) * channels))
    parameters = [augmentation.draw(generator(seed, sample)) for sample in range(3)]
    for drawn in parameters:
        assert all(n <= s for n, s in zip(augmentation.needed_size(drawn), augmentation.source_size(), strict=True))
    batch = batch_for(augmentation, parameters, channels)
    before = batch.data.clone(), batch.target.clone()
    first, second = augmentation(batch, parameters), augmentation(batch, parameters)
    assert torch.equal(batch.data, before[0])
    assert torch.equal(batch.target, before[1])
    assert torch.equal(first.data, second.data)
    assert torch.equal(first.target, second.target)
    assert first.data.shape == (3, channels, *patch)
    assert first.target.shape == (3, 1, *patch)
    assert first.data.isfinite().all()
    assert first.target.min() >= 0


def test_draws_what_is_said() -> None:
    geometry = geometry_of((24, 24, 24), planned_shrink=0.7)
    drawn = [draw_strong_sample(generator(5, i), geometry, 2, (0, 1, 2), StrongEffects()) for i in range(4000)]

    def share(name: str) -> float:
        return sum(name in sample for sample in drawn) / len(drawn)

    happens_in_a_channel = 1 - 0.5**2
    expected = {
        "quarter_turn": 0.5,
        "axis_order": 0.5,
        "median": 0.1 * happens_in_a_channel,
        "blur": 0.1 * happens_in_a_channel,
        "noise": 0.1,
        "shift": 0.1 * happens_in_a_channel,
        "contrast": 0.1 * happens_in_a_channel,
        "free_contrast": 0.1 * happens_in_a_channel,
        "low_resolution": 0.15 * happens_in_a_channel,
        "inverted_gamma": 0.1,
        "inverted_gamma_again": 0.1,
        "mirror": 1 - 0.5**3,
        "boxes": 0.4,
        "gradient": 0.3,
        "local_gamma": 0.3,
        "sharpening": 0.2 * happens_in_a_channel,
        "affine": 1 - 0.8 * (1 - 0.4 * (1 - 0.5**3)),
    }
    for name, probability in expected.items():
        # four standard deviations: one in sixteen thousand by chance, for each of the names
        assert share(name) == pytest.approx(probability, abs=4 * (probability * (1 - probability) / 4000) ** 0.5), name


def test_axes_that_may_be_swapped() -> None:
    assert interchangeable_axes((20, 20, 20)) == (0, 1, 2)
    assert interchangeable_axes((8, 20, 20)) == (1, 2)
    assert interchangeable_axes((8, 20, 24)) == ()
    assert interchangeable_axes((20, 24)) == ()


def test_axes_that_are_mirrored() -> None:
    assert mirrored_axes((0, 1, 2), True) == (0, 1, 2)
    assert mirrored_axes((0, 1, 2), False) == ()
    assert mirrored_axes((0, 1, 2), "all_but_last") == (0, 1)
    assert mirrored_axes((0, 1), "all_but_last") == (0,)
    assert mirrored_axes((0, 1, 2), [2, 0]) == (0, 2)
    for wrong in ("all", [3], [True]):
        with pytest.raises(ValueError, match="mirror"):
            mirrored_axes((0, 1, 2), wrong)


@pytest.mark.parametrize("options", [{"labels": "linear"}, {"images": "cubic"}, {"mirror": "x"}])
def test_wrong_options_are_told(options: dict[str, str]) -> None:
    registry = Kernel(discover=False).registry
    with pytest.raises(PluginError, match=next(iter(options))):
        registry.build("augmentations", ComponentRef("stronger", options), context=AugmentationContext((8, 8, 8), 1))


@pytest.mark.parametrize("name", ["nnunet", "stronger"])
def test_nearest_labels_are_labels_of_the_source(name: str) -> None:
    """By vote a label between others can win nowhere that it is not; by the nearest voxel each place has its own."""
    registry, context = Kernel(discover=False).registry, AugmentationContext((16, 16, 16), 1)
    build = lambda options: registry.build("augmentations", ComponentRef(name, options), context=context)  # noqa: E731
    vote, nearest = build({}), build({"labels": "nearest"})
    parameters = [{"affine": 1.2 * np.eye(3), "needed": vote.source_size()}]
    random = np.random.default_rng(0)
    size = vote.source_size()
    batch = Batch(
        torch.from_numpy(random.normal(size=(1, 1, *size)).astype(np.float32)),
        torch.from_numpy(random.integers(0, 4, size=(1, 1, *size)).astype(np.int16)),
    )
    by_vote, by_nearest = vote(batch, parameters), nearest(batch, parameters)
    assert torch.equal(by_vote.data, by_nearest.data)
    assert not torch.equal(by_vote.target, by_nearest.target)
    centre = [(extent - 1) / 2 for extent in size]
    expected = turn_nearest(batch.target[0], 1.2 * np.eye(3), (16,) * 3, centre, -1).clamp(min=0)
    assert torch.equal(by_nearest.target[0], expected)


def test_nearest_of_a_half_voxel_shift() -> None:
    source = torch.arange(6, dtype=torch.int16).view(1, 6, 1).expand(1, 6, 6).contiguous()
    found = turn_nearest(source, np.eye(2), (8, 4), (2.5, 2.5), -1)
    assert found[0, :, 0].tolist() == [-1, 0, 1, 2, 3, 4, 5, -1]


def test_dummy_2d_can_be_left_out() -> None:
    assert geometry_of((4, 20, 20)).dummy_2d
    without = geometry_of((4, 20, 20), dummy_2d=False)
    assert not without.dummy_2d
    assert without.rotation == pytest.approx(np.pi / 6)
    assert without.source_size[0] > 4


PEER = """
import sys
import numpy as np
import torch
from batchgeneratorsv2.transforms.local.brightness_gradient import BrightnessGradientAdditiveTransform as Gradient
from batchgeneratorsv2.transforms.local.local_gamma import LocalGammaTransform as LocalGamma
from batchgeneratorsv2.transforms.noise.median_filter import MedianFilterTransform as Median
from batchgeneratorsv2.transforms.noise.sharpen import SharpeningTransform as Sharpen

if __name__ == "__main__":
    given = np.load(sys.argv[1])
    found = {}
    for name in ("flat", "solid"):
        image, centre, width = given[f"{name} image"], given[f"{name} centre"], given[f"{name} width"]
        shape = image.shape[1:]
        place = {"scale": lambda shape, axis: width[axis], "loc": lambda shape, axis: centre[axis] / shape[axis]}
        run = lambda made: made(image=torch.from_numpy(image.copy()))["image"].numpy()
        found[f"{name} kernel"] = Gradient(**place, max_strength=1.0, mean_centered=False)._generate_kernel(shape)
        found[f"{name} gradient"] = run(Gradient(**place, max_strength=lambda *_: -3.0, mean_centered=False))
        found[f"{name} gamma"] = run(LocalGamma(**place, gamma=lambda *_: 2.5))
        found[f"{name} sharp"] = run(Sharpen(strength=0.7))
        found[f"{name} median"] = run(Median(4))
    np.savez(sys.argv[2], **found)
"""


@pytest.mark.parity
def test_local_effects_equal_nnunetv2s(peer: Path, tmp_path: Path, parity) -> None:
    random = np.random.default_rng(1)
    shapes = {"flat": (17, 21), "solid": (9, 12, 10)}
    given = {}
    for name, shape in shapes.items():
        given[f"{name} image"] = random.normal(1, 2, size=(1, *shape)).astype(np.float32)
        given[f"{name} centre"] = random.uniform(-0.5, 1.5, len(shape)) * shape
        given[f"{name} width"] = np.array(shape) / 3
    np.savez(tmp_path / "given.npz", **given)
    (tmp_path / "peer.py").write_text(PEER)
    environment = {**os.environ, "nnUNet_raw": "/tmp", "nnUNet_preprocessed": "/tmp", "nnUNet_results": "/tmp"}
    subprocess.run([peer, "peer.py", "given.npz", "found.npz"], cwd=tmp_path, check=True, env=environment)
    expected = np.load(tmp_path / "found.npz")
    for name, shape in shapes.items():
        image = torch.from_numpy(given[f"{name} image"])
        place = tuple(given[f"{name} centre"].tolist()), tuple(given[f"{name} width"].tolist())
        found = {"kernel": profile(Bump(*place, 1.0), shape, image.device)}
        found["gradient"], found["gamma"], found["sharp"] = image[0].clone(), image[0].clone(), image.clone()
        add_gradient(found["gradient"], Bump(*place, -3.0))
        apply_local_gamma(found["gamma"], Bump(*place, 2.5))
        sharpen(found["sharp"], torch.tensor([0.7]))
        found["median"] = median(image, np.array([4.0]))
        for effect, array in found.items():
            wanted = expected[f"{name} {effect}"].reshape(array.shape)
            difference = float(np.abs(array.numpy() - wanted).max() / np.ptp(wanted))
            parity("local effects of DA5, of the range", 1, difference, 1e-5, section="Augmentation")
