"""The nonzero region of an image: what nnU-Net crops to before anything else is done.

A voxel belongs to it if any channel is nonzero there, or if it lies in a hole of such voxels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[tuple[int, int], ...]
"""Half-open interval (start, stop) per spatial axis."""

OUTSIDE = -1
"""Label of background voxels outside the nonzero region (nnU-Net's)."""


def nonzero_mask(data: NDArray[Any]) -> NDArray[np.bool_]:
    """Where any channel is nonzero, holes filled.

    A hole is a set of zero voxels that no path through faces of zero voxels joins to the border of the array, as in
    `scipy.ndimage.binary_fill_holes`; only zeros that no straight line joins to the border are searched.

    Args:
        data: (c, z, y, x).
    """
    mask = _any_nonzero(data)
    box = bounding_box(mask)
    inner = mask[slices(box)]  # zeros outside the box are joined to the border
    if not inner.all():
        _fill_holes(inner)
    return mask


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """Smallest box that holds all True voxels; the whole array if there are none (nnU-Net's rule)."""
    whole = tuple((0, n) for n in mask.shape)
    if all(face.any() for axis in range(mask.ndim) for face in np.moveaxis(mask, axis, 0)[[0, -1]]):
        return whole  # most often, and told by little of it
    box: list[tuple[int, int]] = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        if not hit.size:
            return whole
        box.append((int(hit[0]), int(hit[-1]) + 1))
        mask = mask[(slice(None),) * axis + (slice(*box[-1]),)]
    return tuple(box)


def nonzero_box(data: NDArray[Any]) -> Box:
    """The box that `crop_to_nonzero` crops to. Cheaper than the mask: holes do not change it.

    Args:
        data: (c, z, y, x).
    """
    return bounding_box(_any_nonzero(data))


def crop_to_nonzero(
    data: NDArray[Any], labels: NDArray[Any] | None = None, *, consumed: bool = False
) -> tuple[NDArray[Any], NDArray[np.int16], Box]:
    """Crop to the nonzero region.

    Args:
        data: (c, z, y, x).
        labels: (z, y, x) or (1, z, y, x) integers, or None.
        consumed: the labels are not needed any more: they may be written over, and be part of the target.

    Returns:
        The cropped data, a view; the target, int16 (1, z, y, x): the cropped labels (0 without labels), with -1 where
        a voxel of background lies outside the nonzero region; the box.
    """
    mask = nonzero_mask(data)
    box = bounding_box(mask)
    inner = mask[slices(box)]
    if labels is None:
        target = np.zeros(inner.shape, np.int16)
    else:
        target = labels.reshape(labels.shape[-3:])[slices(box)].astype(np.int16, copy=not consumed)
    if not inner.all():
        inner |= target != 0
        np.logical_not(inner, out=inner)
        np.copyto(target, OUTSIDE, where=inner)
    return data[(slice(None), *slices(box))], target[None], box


def slices(box: Box) -> tuple[slice, ...]:
    """The box as an index."""
    return tuple(slice(start, stop) for start, stop in box)


def _any_nonzero(data: NDArray[Any]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = data[0] != 0
    for channel in data[1:]:
        mask |= channel != 0
    return mask


def _fill_holes(mask: NDArray[np.bool_]) -> None:
    """Fill the holes of a three-dimensional mask, in place."""
    seen = _seen_from_border(mask)
    hidden = mask | seen
    np.logical_not(hidden, out=hidden)
    # Zeros seen from the border are outside. A connected part of the hidden ones is outside iff it touches one of
    # those: any path out of it would have to cross such a voxel first.
    touching = _beside(seen)
    del seen
    touching &= hidden
    mask |= hidden
    if not touching.any():
        return
    from scipy import ndimage

    around = slices(bounding_box(hidden))
    parts, count = ndimage.label(hidden[around])
    inside = np.ones(count + 1, np.bool_)
    inside[parts[touching[around]]] = False
    del hidden, touching
    for plane, found in zip(mask[around], parts, strict=True):
        np.logical_and(plane, inside[found], out=plane)


def _beside(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels that share a face with one of the mask."""
    found = np.zeros_like(mask)
    for axis in range(mask.ndim):
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        found[low] |= mask[high]
        found[high] |= mask[low]
    return found


def _seen_from_border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Zeros that a straight line along an axis, over zeros alone, joins to the border."""
    seen = np.zeros_like(mask)
    for axis in (0, 1):
        planes = np.moveaxis(mask, axis, 0)
        marks = np.moveaxis(seen, axis, 0)
        for order in (range(len(planes)), range(len(planes) - 1, -1, -1)):
            free = np.ones(planes.shape[1:], np.bool_)
            for index in order:
                free &= ~planes[index]
                if not free.any():
                    break
                marks[index] |= free
    place = np.arange(mask.shape[2])
    some = mask.any(axis=2)
    first = np.where(some, mask.argmax(axis=2), mask.shape[2])[..., None]
    last = np.where(some, mask.shape[2] - 1 - mask[:, :, ::-1].argmax(axis=2), -1)[..., None]
    seen |= (place < first) | (place > last)
    return seen
