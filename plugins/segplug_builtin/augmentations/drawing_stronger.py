"""What the stronger augmentation (nnU-Net's "DA5") draws for one sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug_builtin.augmentations.drawing import draw_around_one
from segplug_builtin.augmentations.geometry import Geometry, affine_matrix, needed_region
from segplug_builtin.augmentations.local import Bump


@dataclass(frozen=True)
class StrongEffects:
    """How often each effect happens to a sample, and its range, in the order of application: nnU-Net's DA5.

    Where effects take channels by themselves, it is with probability `channel`.
    """

    rotation: float = 0.4
    rotation_axis: float = 0.5
    scaling: float = 0.2
    scaling_range: tuple[float, float] = (0.7, 1.43)
    quarter_turn: float = 0.5
    swapped_axes: float = 0.5
    smoothing: float = 0.2
    median_size: tuple[int, int] = (2, 8)
    blur_sigma: tuple[float, float] = (0.3, 1.5)
    noise: float = 0.1
    noise_std: tuple[float, float] = (0.0, 0.1)
    shift: float = 0.1
    shift_std: float = 0.5
    contrast: float = 0.2
    contrast_range: tuple[float, float] = (0.5, 2.0)
    low_resolution: float = 0.15
    low_resolution_zoom: tuple[float, float] = (0.25, 1.0)
    inverted_gamma: tuple[float, float] = (0.1, 0.1)
    gamma_range: tuple[float, float] = (0.7, 1.5)
    mirror: float = 0.5
    boxes: float = 0.4
    box_count: tuple[int, int] = (1, 5)
    gradient: float = 0.3
    gradient_strength: tuple[float, float] = (1.0, 5.0)
    local_gamma: float = 0.3
    local_gamma_below: tuple[float, float] = (0.01, 0.8)
    local_gamma_above: tuple[float, float] = (1.5, 4.0)
    bump_place: tuple[float, float] = (-0.5, 1.5)
    sharpening: float = 0.2
    sharpening_strength: tuple[float, float] = (0.1, 1.0)
    channel: float = 0.5


def draw_strong_sample(
    random: np.random.Generator, geometry: Geometry, channels: int, mirror_axes: Sequence[int], effects: StrongEffects
) -> dict[str, Any]:
    """Draw one sample's parameters. Effects that do not happen are absent.

    Returns:
        `affine`, `needed`, `noise`, `blur`, `low_resolution`, `mirror` as of `drawing.draw_sample`; `quarter_turn`
        (times, axis, axis); `axis_order`; per channel float64 arrays `median` (1: not that channel), `shift` (0),
        `contrast` and `free_contrast` (1), `inverted_gamma`, `inverted_gamma_again`, `sharpening` (0); lists of
        (channel, ...): `boxes` with the box, `gradient` and `local_gamma` with a `Bump`.
    """
    drawn: dict[str, Any] = {}
    _draw_spatial(random, geometry, effects, drawn)
    _draw_axes(random, geometry.patch_size, effects, drawn)

    def chosen() -> NDArray[np.bool_]:
        return random.random(channels) < effects.channel

    def keep(name: str, values: NDArray[np.float64], neutral: float) -> None:
        some = chosen()
        if some.any():
            drawn[name] = np.where(some.reshape(-1, *(1,) * (values.ndim - 1)), values, neutral)

    # one of the two is picked, and then happens or not
    by_median, happens = random.random() < 0.5, random.random() < effects.smoothing
    if happens and by_median:
        keep("median", random.integers(*effects.median_size, size=channels).astype(np.float64), 1)
    elif happens:
        sigmas = random.uniform(*effects.blur_sigma, size=(channels, 1))
        keep("blur", np.repeat(sigmas, len(geometry.patch_size), axis=1), 0)
    if random.random() < effects.noise:
        drawn["noise"] = (random.uniform(*effects.noise_std), int(random.integers(2**62)))
    if random.random() < effects.shift:
        keep("shift", random.normal(0, effects.shift_std, channels), 0)
    within_range, happens = random.random() < 0.5, random.random() < effects.contrast
    if happens:
        name = "contrast" if within_range else "free_contrast"
        keep(name, draw_around_one(random, effects.contrast_range, channels), 1)
    if random.random() < effects.low_resolution:
        keep("low_resolution", random.uniform(*effects.low_resolution_zoom, size=channels), 1)
    for name, probability in zip(("inverted_gamma", "inverted_gamma_again"), effects.inverted_gamma, strict=True):
        if random.random() < probability:
            drawn[name] = draw_around_one(random, effects.gamma_range, channels)
    mirrored = random.random(len(geometry.patch_size)) < effects.mirror
    if any(mirrored[axis] for axis in mirror_axes):
        drawn["mirror"] = tuple(bool(m) and axis in mirror_axes for axis, m in enumerate(mirrored))
    _draw_places(random, geometry.patch_size, channels, effects, drawn)
    if random.random() < effects.sharpening:
        keep("sharpening", random.uniform(*effects.sharpening_strength, size=channels), 0)
    return drawn


def interchangeable_axes(patch_size: Sequence[int]) -> tuple[int, ...]:
    """Axes of the extent that most axes have: those that may be turned by 90 degrees and swapped (DA5's rule)."""
    counts = [sum(other == extent for other in patch_size) for extent in patch_size]
    return tuple(axis for axis, count in enumerate(counts) if count == max(counts) and count > 1)


def _draw_spatial(
    random: np.random.Generator, geometry: Geometry, effects: StrongEffects, drawn: dict[str, Any]
) -> None:
    turned, scaled = random.random(2) < (effects.rotation, effects.scaling)
    angles = random.uniform(-geometry.rotation, geometry.rotation, size=3)
    angles = np.where(random.random(3) < effects.rotation_axis, angles, 0) if turned else np.zeros(3)
    plane = geometry.turned_axes
    scales = random.uniform(*effects.scaling_range, size=plane) if scaled else np.ones(plane)
    drawn["needed"] = geometry.patch_size
    if not (scaled or angles[:1].any() or (plane == 3 and angles.any())):
        return
    # columns are scaled, then turned, as nnU-Net does
    drawn["affine"] = matrix = affine_matrix((angles[:1] if plane == 2 else angles).tolist(), 1.0) * scales
    needed = needed_region(geometry.patch_size[-plane:], geometry.source_size[-plane:], matrix)
    drawn["needed"] = (*geometry.patch_size[:-plane], *needed)


def _draw_axes(
    random: np.random.Generator, patch_size: Sequence[int], effects: StrongEffects, drawn: dict[str, Any]
) -> None:
    allowed = interchangeable_axes(patch_size)
    if not allowed:
        return
    if random.random() < effects.quarter_turn:
        first, second = sorted(random.choice(allowed, 2, replace=False).tolist())
        drawn["quarter_turn"] = (int(random.integers(4)), first, second)
    if random.random() < effects.swapped_axes:
        order = list(range(len(patch_size)))
        for axis, other in zip(allowed, random.permutation(allowed).tolist(), strict=True):
            order[axis] = other
        drawn["axis_order"] = tuple(order)


def _draw_places(
    random: np.random.Generator,
    patch_size: Sequence[int],
    channels: int,
    effects: StrongEffects,
    drawn: dict[str, Any],
) -> None:
    def chosen() -> list[int]:
        return [int(channel) for channel in np.flatnonzero(random.random(channels) < effects.channel)]

    if random.random() < effects.boxes:
        drawn["boxes"] = [
            (channel, _draw_box(random, patch_size))
            for channel in chosen()
            for _ in range(random.integers(*effects.box_count))
        ]
    if random.random() < effects.gradient:
        drawn["gradient"] = [
            (channel, _draw_bump(random, patch_size, effects, _draw_strength(random, effects))) for channel in chosen()
        ]
    if random.random() < effects.local_gamma:
        drawn["local_gamma"] = [
            (channel, _draw_bump(random, patch_size, effects, _draw_exponent(random, effects))) for channel in chosen()
        ]


def _draw_box(random: np.random.Generator, patch_size: Sequence[int]) -> tuple[tuple[int, int], ...]:
    box = []
    for extent in patch_size:
        smallest = max(1, extent // 10)
        size = int(random.integers(smallest, max(smallest + 1, extent // 3)))
        first = int(random.integers(0, extent - size + 1))
        box.append((first, first + size))
    return tuple(box)


def _draw_bump(random: np.random.Generator, patch_size: Sequence[int], effects: StrongEffects, strength: float) -> Bump:
    centre = tuple(float(random.uniform(*effects.bump_place)) * extent for extent in patch_size)
    # log-uniform from a sixth of the extent to all of it
    width = tuple(
        math.exp(random.uniform(math.log(max(1, extent // 6)), math.log(max(1, extent)))) for extent in patch_size
    )
    return Bump(centre, width, strength)


def _draw_strength(random: np.random.Generator, effects: StrongEffects) -> float:
    sign = -1 if random.random() < 0.5 else 1
    return float(sign * random.uniform(*effects.gradient_strength))


def _draw_exponent(random: np.random.Generator, effects: StrongEffects) -> float:
    span = effects.local_gamma_below if random.random() < 0.5 else effects.local_gamma_above
    return float(random.uniform(*span))
