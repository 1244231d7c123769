"""Each effect does what its definition says, computed here the slow and plain way."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from segplug_builtin.augmentations import intensity, resolution
from segplug_builtin.augmentations.geometry import affine_matrix, geometry_of
from segplug_builtin.augmentations.grids import turn_batch
from segplug_builtin.augmentations.spatial import move
from segplug_builtin.augmentations.voting import corner_weights

Array = NDArray[np.float64]

shapes = st.lists(st.integers(1, 24), min_size=2, max_size=3)


def smooth(random: np.random.Generator, *shape: int, sigma: float = 1.5) -> Array:
    return ndimage.gaussian_filter(random.normal(size=shape), sigma)


def places(matrix: Array, size: tuple[int, ...], source: tuple[int, ...]) -> Array:
    """Voxel indices in the source, (k, *size)."""
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in size], indexing="ij"))
    return np.tensordot(matrix, grid, 1) + (np.array(source) - 1).reshape(-1, *[1] * len(size)) / 2


def voted(labels: NDArray[np.int16], where: Array) -> NDArray[np.int16]:
    """Largest interpolated indicator, counting what lies outside as label -1; -9 where it is too close to call."""
    known = sorted({-1, *labels.ravel().tolist()})
    scores = np.stack(
        [
            ndimage.map_coordinates(
                np.pad(labels == u, 2, constant_values=u == -1).astype(float), where + 2, order=1, mode="nearest"
            )
            for u in known
        ]
    )
    best, second = np.sort(scores, axis=0)[[-1, -2]]
    found = np.array(known, np.int16)[scores.argmax(0)]
    return np.where(best - second < 2e-3, -9, found).astype(np.int16)


@settings(max_examples=40)
@given(st.lists(st.integers(4, 22), min_size=2, max_size=3), st.integers(0, 999), st.booleans())
def test_turned_samples(patch: list[int], seed: int, scaled_only: bool) -> None:
    geometry = geometry_of(patch)
    random = np.random.default_rng(seed)
    plane = geometry.turned_axes
    scale = random.uniform(0.7, 1.4)
    angles = random.uniform(-geometry.rotation, geometry.rotation, 1 if plane == 2 else 3).tolist()
    matrix = scale * np.eye(plane) if scaled_only else affine_matrix(angles, scale)
    source = geometry.source_size
    data = smooth(random, 2, *source).astype(np.float32)
    maps = np.digitize(smooth(random, 1, *source, sigma=1), [-0.15, 0, 0.1]).astype(np.int16) - 1
    tensors = torch.from_numpy(data)[None], torch.from_numpy(maps)[None]
    out, labels = (each[0].numpy() for each in move(*tensors, [{"affine": matrix}], geometry))
    assert out.shape == (2, *patch)

    where = places(matrix, tuple(patch[-plane:]), source[-plane:])
    for image, result in zip(data.reshape(-1, *source[-plane:]), out.reshape(-1, *patch[-plane:]), strict=True):
        padded = np.pad(image.astype(float), 2)
        expected = ndimage.map_coordinates(padded, where + 2, order=1, mode="nearest")
        assert np.abs(result - expected).max() < 2e-5
    for each, result in zip(maps.reshape(-1, *source[-plane:]), labels.reshape(-1, *patch[-plane:]), strict=True):
        expected = voted(each, where)
        clear = expected != -9
        assert (result == expected)[clear].all()

    # the way for GPUs, run here on the CPU
    centre = [(n - 1) / 2 for n in source[-plane:]]
    flat = [each.flatten(1, 2) if geometry.dummy_2d else each for each in tensors]
    batch = turn_batch(flat[0], flat[1], matrix[None], patch[-plane:], centre)
    assert np.abs(batch[0].numpy().ravel() - out.ravel()).max() < 2e-5
    assert (batch[1].numpy().ravel() != labels.ravel()).mean() < 0.01  # ties


def test_ties_go_to_the_nearest_voxel_and_else_to_the_lowest_label() -> None:
    labels = torch.zeros((1, 1, 3, 3), dtype=torch.int16)
    labels[0, 0] = torch.tensor([[5, 5, 3], [5, 5, 3], [4, 4, 3]])
    centre, matrices = [1.0, 1.0], np.eye(2)[None]
    images = torch.zeros(1, 1, 3, 3)
    # one voxel, in the middle of four: 5, 3, 4, 3 have weights 1/4 each
    assert turn_batch(images, labels, matrices, (1, 1), [1.5, 1.5])[1].item() == 3
    labels[0, 0] = torch.tensor([[5, 5, 5], [5, 2, 5], [5, 5, 5]])
    assert turn_batch(images, labels, matrices, (1, 1), [0.9, 0.9])[1].item() == 2  # 0.81 of the cell
    assert turn_batch(images, labels, matrices, (1, 1), [0.5, 1.0])[1].item() in (2, 5)
    assert turn_batch(images, labels, matrices, (1, 1), [0.49, 1.0])[1].item() == 5
    assert turn_batch(images, labels, matrices, (1, 1), centre)[1].item() == 2


@settings(max_examples=40)
@given(shapes, st.integers(0, 999))
def test_blur(shape: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(3, *shape))
    sigmas = random.uniform(0.5, 1, size=(3, len(shape)))
    result = resolution.blur(torch.from_numpy(rows).float(), sigmas)
    for row, sigma, found in zip(rows, sigmas, result, strict=True):
        expected = row
        for axis, width in enumerate(sigma):
            half = resolution.blur_width(width) // 2
            kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / width) ** 2)
            expected = ndimage.correlate1d(expected, kernel / kernel.sum(), axis, mode="mirror")
        assert np.abs(found.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize(("sigma", "width"), [(0.5, 3), (0.57, 3), (0.6, 5), (0.75, 5), (0.9, 5), (0.95, 7), (1.0, 7)])
def test_width_of_the_blur(sigma: float, width: int) -> None:
    assert resolution.blur_width(sigma) == width


@settings(max_examples=40)
@given(shapes, st.integers(0, 999), st.booleans())
def test_low_resolution(shape: list[int], seed: int, dummy_2d: bool) -> None:
    random = np.random.default_rng(seed)
    rows = torch.from_numpy(random.normal(size=(3, *shape))).float()
    zooms = random.uniform(0.5, 1, size=3)
    fixed = int(dummy_2d and len(shape) == 3)
    result = resolution.lower_resolution(rows, zooms, fixed)
    for row, zoom, found in zip(rows, zooms, result, strict=True):
        small = [n if axis < fixed else max(1, round(n * float(np.float32(zoom)))) for axis, n in enumerate(shape)]
        down = F.interpolate(row[None, None], small, mode="nearest-exact")
        expected = F.interpolate(down, shape, mode="bilinear" if len(shape) == 2 else "trilinear")[0, 0]
        assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize("size", [300, 500])
def test_low_resolution_of_long_rows(size: int) -> None:
    rows = torch.randn(2, 8, size, generator=torch.Generator().manual_seed(0))
    result = resolution.lower_resolution(rows, np.array([0.6, 0.8]))
    for row, zoom, found in zip(rows, (0.6, 0.8), result, strict=True):
        down = F.interpolate(row[None, None], [round(8 * zoom), round(size * zoom)], mode="nearest-exact")
        assert (found - F.interpolate(down, row.shape, mode="bilinear")[0, 0]).abs().max() < 1e-4  # torch's rounding


@settings(max_examples=40)
@given(shapes, st.integers(0, 999), st.booleans(), st.sampled_from([(0, 1), (1000, 20), (-3, 0.01)]))
def test_gamma(shape: list[int], seed: int, inverted: bool, scale: tuple[float, float]) -> None:
    random = np.random.default_rng(seed)
    rows = scale[0] + scale[1] * random.normal(size=(2, *shape))
    exponents = random.uniform(0.7, 1.5, 2)
    result = torch.from_numpy(rows).float()
    rows = result.numpy().astype(float)
    intensity.apply_gamma(result, torch.from_numpy(exponents).float(), inverted)
    for row, exponent, found in zip(rows, exponents, result.numpy(), strict=True):
        image = -row if inverted else row
        low, span = image.min(), np.ptp(image)
        changed = ((image - low) / max(span, 1e-7)) ** exponent * span + low
        if row.size > 1:
            changed = (changed - changed.mean()) / max(changed.std(ddof=1), 1e-7) * image.std(ddof=1) + image.mean()
        expected = -changed if inverted else changed
        assert np.abs(found - expected).max() < 3e-4 * scale[1] + 1e-6 * abs(scale[0])


def test_gamma_of_a_constant_channel() -> None:
    rows = torch.full((2, 4, 5), 3.5)
    intensity.apply_gamma(rows, torch.tensor([0.7, 1.4]), False)
    intensity.apply_gamma(rows, torch.tensor([0.7, 1.4]), True)
    assert torch.equal(rows, torch.full((2, 4, 5), 3.5))


@settings(max_examples=30)
@given(shapes, st.integers(0, 999))
def test_contrast_and_brightness(shape: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, factors = random.normal(2, 3, size=(3, *shape)), random.uniform(0.75, 1.25, 3)
    stretched, scaled = torch.from_numpy(rows).float(), torch.from_numpy(rows).float()
    intensity.stretch_contrast(stretched, torch.from_numpy(factors).float())
    intensity.scale_brightness(scaled, torch.from_numpy(factors).float())
    for row, factor, first, second in zip(rows, factors, stretched.numpy(), scaled.numpy(), strict=True):
        expected = np.clip((row - row.mean()) * factor + row.mean(), row.min(), row.max())
        assert np.abs(first - expected).max() < 1e-5
        assert np.abs(second - row * factor).max() < 1e-5


def test_noise() -> None:
    sample = torch.full((2, 40, 50, 60), 7.0)
    again, other = sample.clone(), sample.clone()
    intensity.add_noise(sample, 0.08, 3)
    intensity.add_noise(again, 0.08, 3)
    intensity.add_noise(other, 0.08, 4)
    noise = (sample - 7).double()
    assert torch.equal(sample, again)
    assert not torch.equal(sample, other)
    for channel in noise:
        assert abs(channel.mean()) < 5 * 0.08 / channel.numel() ** 0.5
        assert channel.std() == pytest.approx(0.08, rel=0.01)
    assert abs(np.corrcoef(noise.flatten(1))[0, 1]) < 0.02  # every channel its own


def test_corners_are_counted_with_the_last_axis_fastest() -> None:
    fractions = [torch.tensor([0.1]), torch.tensor([0.2]), torch.tensor([0.4])]
    expected = [a * b * c for a, b, c in product((0.9, 0.1), (0.8, 0.2), (0.6, 0.4))]
    assert torch.allclose(corner_weights(fractions)[:, 0], torch.tensor(expected))
