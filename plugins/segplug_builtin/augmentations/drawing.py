"""What nnU-Net's default augmentation draws for one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug_builtin.augmentations.geometry import Geometry, affine_matrix, needed_region


@dataclass(frozen=True)
class Effects:
    """How often each effect happens to a sample, and its range: nnU-Net's defaults, in the order of application.

    Blur and low resolution, where they happen, take each channel with probability `*_channel`.
    """

    rotation: float = 0.2
    scaling: float = 0.2
    scaling_range: tuple[float, float] = (0.7, 1.4)
    noise: float = 0.1
    noise_std: tuple[float, float] = (0.0, 0.1)
    blur: float = 0.2
    blur_channel: float = 0.5
    blur_sigma: tuple[float, float] = (0.5, 1.0)
    brightness: float = 0.15
    brightness_range: tuple[float, float] = (0.75, 1.25)
    contrast: float = 0.15
    contrast_range: tuple[float, float] = (0.75, 1.25)
    low_resolution: float = 0.25
    low_resolution_channel: float = 0.5
    low_resolution_zoom: tuple[float, float] = (0.5, 1.0)
    inverted_gamma: float = 0.1
    gamma: float = 0.3
    gamma_range: tuple[float, float] = (0.7, 1.5)
    mirror: float = 0.5


def draw_sample(
    random: np.random.Generator,
    geometry: Geometry,
    channels: int,
    mirror_axes: Sequence[int],
    effects: Effects,
) -> dict[str, Any]:
    """Draw one sample's parameters. Effects that do not happen are absent.

    Returns:
        `affine` (k, k) float64, see `geometry.affine_matrix`; `needed`, the region that is read; `noise` (standard
        deviation, seed); per channel float64 arrays `blur` (channels, axes) of sigmas in voxels (0: not that channel),
        `brightness`, `contrast`, `low_resolution` (1: not that channel), `inverted_gamma`, `gamma`;
        `mirror`, a bool per spatial axis.
    """
    parameters: dict[str, Any] = {}
    axes = len(geometry.patch_size)
    _draw_spatial(random, geometry, effects, parameters)
    if random.random() < effects.noise:
        parameters["noise"] = (random.uniform(*effects.noise_std), int(random.integers(2**62)))
    if random.random() < effects.blur:
        chosen = random.random(channels) < effects.blur_channel
        sigmas = random.uniform(*effects.blur_sigma, size=(channels, axes))
        if chosen.any():
            parameters["blur"] = np.where(chosen[:, None], sigmas, 0)
    if random.random() < effects.brightness:
        parameters["brightness"] = draw_around_one(random, effects.brightness_range, channels)
    if random.random() < effects.contrast:
        parameters["contrast"] = draw_around_one(random, effects.contrast_range, channels)
    if random.random() < effects.low_resolution:
        chosen = random.random(channels) < effects.low_resolution_channel
        zoom = random.uniform(*effects.low_resolution_zoom, size=channels)
        if chosen.any():
            parameters["low_resolution"] = np.where(chosen, zoom, 1)
    if random.random() < effects.inverted_gamma:
        parameters["inverted_gamma"] = draw_around_one(random, effects.gamma_range, channels)
    if random.random() < effects.gamma:
        parameters["gamma"] = draw_around_one(random, effects.gamma_range, channels)
    mirrored = random.random(axes) < effects.mirror
    if any(mirrored[axis] for axis in mirror_axes):
        parameters["mirror"] = tuple(bool(mirrored[axis]) and axis in mirror_axes for axis in range(axes))
    return parameters


def _draw_spatial(
    random: np.random.Generator, geometry: Geometry, effects: Effects, parameters: dict[str, Any]
) -> None:
    turned, scaled = random.random(2) < (effects.rotation, effects.scaling)
    angles = random.uniform(-geometry.rotation, geometry.rotation, size=3)
    scale = random.uniform(*effects.scaling_range) if scaled else 1.0
    plane = geometry.turned_axes
    parameters["needed"] = geometry.patch_size
    if not (turned or scaled):
        return
    matrix = scale * np.eye(plane)
    if turned:
        matrix = affine_matrix((angles[:1] if plane == 2 else angles).tolist(), scale)
    parameters["affine"] = matrix
    needed = needed_region(geometry.patch_size[-plane:], geometry.source_size[-plane:], matrix)
    parameters["needed"] = (*geometry.patch_size[:-plane], *needed)


def draw_around_one(random: np.random.Generator, span: tuple[float, float], count: int) -> NDArray[np.float64]:
    """Per channel, with probability 0.5 uniform below 1, else above 1: nnU-Net's rule for factors and exponents."""
    below = random.random(count) < 0.5
    return np.where(below, random.uniform(span[0], 1, count), random.uniform(1, span[1], count))
