"""Mistakes in what the previous stage of a cascade predicted, so that the next one learns not to trust it blindly.

nnU-Net's rules: some labels are dilated, eroded, closed or opened with a ball; then small components of some vanish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segplug.protocols import Parameters

OPERATORS = ("dilate", "erode", "close", "open")
_FAR = 10_000  # more than any squared distance within a ball, and int16 holds it with three of those added


@dataclass(frozen=True)
class CascadeEffects:
    """How often a sample is changed, and how: nnU-Net's defaults.

    Args:
        operator, drop: probability for a sample; `*_label` for each of its labels then.
        radius: of the ball, in voxels.
        drop_below: share of the patch that a component that vanishes may take.
    """

    operator: float = 0.4
    operator_label: float = 0.5
    radius: tuple[float, float] = (1.0, 8.0)
    drop: float = 0.2
    drop_label: float = 0.5
    drop_below: float = 0.15


def draw_cascade(random: np.random.Generator, labels: Sequence[int], effects: CascadeEffects) -> dict[str, Any]:
    """Draw one sample's parameters. Effects that do not happen are absent.

    Args:
        labels: that the previous stage can predict; none without a cascade.

    Returns:
        `operators`: (label, operator, diameter of the ball) in order of application; `drops`: (label, number in [0, 1)
        that picks the component).
    """
    parameters: dict[str, Any] = {}
    if not labels:
        return parameters
    if random.random() < effects.operator:
        order = random.permutation(labels)[random.random(len(labels)) < effects.operator_label]
        names = random.choice(OPERATORS, len(order))
        # nnU-Net lays a grid of whole steps from -radius to radius: the ball has half a voxel's precision
        diameters = np.floor(2 * random.uniform(*effects.radius, len(order)))
        parameters["operators"] = tuple(
            (int(label), str(name), int(diameter))
            for label, name, diameter in zip(order, names, diameters, strict=True)
        )
    if random.random() < effects.drop:
        order = random.permutation(labels)[random.random(len(labels)) < effects.drop_label]
        parameters["drops"] = tuple((int(label), float(random.random())) for label in order)
    return {name: value for name, value in parameters.items() if value}


def spoil(previous: Tensor, parameters: Sequence[Parameters], effects: CascadeEffects) -> None:
    """Change the labels of the previous stage, in place.

    Args:
        previous: int16 (samples, 1, *patch), labels; 0 is background.
        parameters: of each sample, see `draw_cascade`.
    """
    for labels, drawn in zip(previous[:, 0], parameters, strict=True):
        for label, operator, diameter in drawn.get("operators", ()):
            _operate(labels, label, operator, diameter)
        for label, chosen in drawn.get("drops", ()):
            _drop(labels, label, chosen, effects.drop_below * labels.numel())


def _operate(labels: Tensor, label: int, operator: str, diameter: int) -> None:
    """What a label gains it takes from the others; what it loses becomes background."""
    # a box saves a CPU work; a GPU would have to be waited for
    box = _box_around(labels == label, margin=diameter + 2) if labels.device.type == "cpu" else (slice(None),)
    if box is None:
        return
    part = labels[box]
    before = part == label
    steps = {"dilate": (dilate,), "erode": (erode,), "close": (dilate, erode), "open": (erode, dilate)}[operator]
    after = before
    for step in steps:
        after = step(after, diameter)
    part.masked_fill_(before & ~after, 0).masked_fill_(after & ~before, label)


def _box_around(mask: Tensor, margin: int) -> tuple[slice, ...] | None:
    """The box that holds a mask and `margin` voxels around it; None for an empty one."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        places = mask.any(others[1]).any(others[0]) if len(others) == 2 else mask.any(others[0])
        found = places.nonzero().flatten()
        if not len(found):
            return None
        box.append(slice(max(0, int(found[0]) - margin), int(found[-1]) + margin + 1))
    return tuple(box)


def dilate(mask: Tensor, diameter: int) -> Tensor:
    """Dilate a mask (two or three axes) with a ball of a whole number of half voxels.

    A ball of odd diameter lies half a voxel off its centre, towards the front, as nnU-Net's does. It is a threshold of
    the squared distance to the mask, whose minimum is found axis by axis.
    """
    odd = diameter % 2
    distance = torch.full(mask.shape, _FAR, dtype=torch.int16, device=mask.device)
    distance.masked_fill_(mask, 0)
    for axis, size in enumerate(mask.shape):
        nearest = torch.full_like(distance, _FAR)
        for offset in range(-(diameter // 2), (diameter + 1) // 2 + 1):
            length = size - abs(offset)
            if length > 0:
                to, source = max(0, -offset), max(0, offset)
                here = nearest.narrow(axis, to, length)
                torch.minimum(here, distance.narrow(axis, source, length) + (2 * offset - odd) ** 2, out=here)
        distance = nearest.clamp_(max=_FAR)
    return distance <= diameter**2


def erode(mask: Tensor, diameter: int) -> Tensor:
    """Erode a mask; nothing is eroded from outside of the patch."""
    return ~dilate(~mask, diameter)


def _drop(labels: Tensor, label: int, chosen: float, largest: float) -> None:
    """Make one component of a label background, any of those that are smaller than `largest`."""
    from scipy import ndimage

    mask = (labels == label).cpu().numpy()
    found, count = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    if not count:
        return
    sizes = np.bincount(found.reshape(-1), minlength=count + 1)[1:]
    small = np.flatnonzero(sizes < largest) + 1
    if len(small):
        component = small[int(chosen * len(small))]
        labels[torch.from_numpy(found == component).to(labels.device)] = 0
