"""The network's logits for a whole image, slab by slab.

Tiles overlap and are averaged by a Gaussian, over mirrored versions and over folds, as in nnU-Net; sums are float32.
The window rolls along one axis: what no further tile reaches is handed on at once, so that the sums held at a time span
one patch along that axis and not the image.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segplug.errors import DataError, PluginError
from segplug.runtime.device import free_memory, sent

SIGMA = 1 / 8
"""Of the Gaussian importance, as a share of the patch (nnU-Net's rule)."""

IMAGE_SHARE, SUMS_SHARE = 1 / 4, 1 / 2
"""Of a GPU's free memory, that an image and the sums of its tiles may take there; the rest is the network's."""

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Window:
    """How the window moves over an image.

    Args:
        shape: of the image, (z, y, x).
        patch: what the network sees; a 2D network gets (1, y, x) tiles with their first axis taken off.
        step: largest step, as a share of the patch.
        axis: along which the window rolls.
        depth: positions along `axis` that are worked on together, such as slices of a 2D network.
        flat: whether the network is 2D.
    """

    shape: tuple[int, ...]
    patch: tuple[int, ...]
    step: float
    axis: int = 0
    depth: int = 1
    flat: bool = False

    @classmethod
    def plan(cls, shape: Sequence[int], patch_size: Sequence[int], step: float, slices: int = 8) -> Window:
        """Choose the axis that takes the least memory. `slices`: how many of them a 2D network works on together."""
        shape = tuple(shape)
        if len(patch_size) == 2:
            many = shape[0] > 1
            return cls(shape, (1, *patch_size), step, 0 if many else 1, min(slices, shape[0]), flat=True)
        patch = tuple(patch_size)
        return cls(shape, patch, step, min(range(3), key=lambda a: min(patch[a] / max(shape[a], 1), 1)))

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Zeros before and after each axis where the image is smaller than the patch; the odd one goes after."""
        missing = [max(p - n, 0) for p, n in zip(self.patch, self.shape, strict=True)]
        return tuple((m // 2, m - m // 2) for m in missing)

    @property
    def padded_shape(self) -> tuple[int, ...]:
        return tuple(max(p, n) for p, n in zip(self.patch, self.shape, strict=True))

    def starts(self, axis: int) -> list[int]:
        """First voxels of the tiles along an axis; a 2D network visits each slice once."""
        size, patch = self.padded_shape[axis], self.patch[axis]
        return list(range(size)) if self.flat and axis == 0 else tile_starts(size, patch, self.step)

    @property
    def order(self) -> tuple[int, int, int]:
        """The axis along which the window rolls, then the others."""
        first, second = (a for a in range(3) if a != self.axis)
        return self.axis, first, second


def tile_starts(size: int, patch: int, step: float) -> list[int]:
    """Evenly spaced, rounded starts, at most `step * patch` apart, the last tile at the end (nnU-Net's rule)."""
    if not 0 < step <= 1:
        raise ValueError(f"step size {step}: expected more than 0 and at most 1")
    room = size - patch
    count = int(np.ceil(room / (patch * step))) + 1
    return [int(np.round(room / (count - 1) * i)) for i in range(count)] if count > 1 else [0]


def tile_weights(size: int, patch: int, starts: Sequence[int]) -> list[NDArray[np.float32]]:
    """Gaussian weights of each tile along one axis, divided by their sum at every voxel.

    The weights of a patch are the product over axes. Tiles form a grid, so their sum is a product too and can be
    divided by beforehand.
    """
    distance = np.arange(patch) - patch // 2
    gaussian = np.exp(-0.5 * (distance / (patch * SIGMA)) ** 2)
    total = np.zeros(size)
    for start in starts:
        total[start : start + patch] += gaussian
    return [(gaussian / total[start : start + patch]).astype(np.float32) for start in starts]


def mirrorings(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """All combinations of axes, the empty one first."""
    return [c for n in range(len(axes) + 1) for c in combinations(sorted(axes), n)]


@dataclass(frozen=True)
class Slab:
    """Finished logits: float32 (classes, thickness, *other axes), from `start` on along the window's axis.

    They stand in memory that is used again: valid until the next slab is asked for.
    """

    start: int
    logits: Tensor


@dataclass(frozen=True)
class Sums:
    """Where tiles are added up.

    Args:
        values: zeros, float32.
        rows: finished ones along the window's axis that are handed on together.
        classes: that are worked on together.
        settle: called when a part of the values has been worked on and is not needed for a while.
    """

    values: Tensor
    rows: int
    classes: int
    settle: Callable[[], None]


def sums_in_memory(shape: Sequence[int], device: torch.device) -> Sums:
    """On the device, or beside it if its memory is too small; finished rows all together."""
    needed, free = 4 * prod(shape), free_memory(device)
    if needed > SUMS_SHARE * free:
        warnings.warn(
            f"the sums of overlapping tiles take {needed / 1e9:.1f} GB, and {device} has {free / 1e9:.1f} GB left: "
            "they are kept in the computer's memory, and resampled there, which takes longer",
            stacklevel=2,
        )
        device = torch.device("cpu")
    return Sums(torch.zeros(tuple(shape), device=device), shape[1], shape[0], lambda: None)


def sums_shape(window: Window, classes: int) -> tuple[int, int, int, int]:
    """(classes, rows that overlap, *other axes) of the sums that are held at a time."""
    _, span = _groups(window)
    return (classes, span, *(window.padded_shape[a] for a in window.order[1:]))  # type: ignore[return-value]


def _groups(window: Window) -> tuple[list[range], int]:
    """Positions along the rolling axis that are worked on together, and the rows that they reach over at most."""
    rolling = window.starts(window.axis)
    groups = [range(i, min(i + window.depth, len(rolling))) for i in range(0, len(rolling), window.depth)]
    return groups, max(rolling[g[-1]] - rolling[g[0]] for g in groups) + window.patch[window.axis]


@torch.inference_mode()
def slide(
    data: Tensor,
    forward: Sequence[Forward],
    window: Window,
    *,
    classes: int,
    device: torch.device,
    mirror_axes: Sequence[int] = (),
    batch_size: int = 1,
    sums_in: Callable[[Sequence[int], torch.device], Sums] = sums_in_memory,
    settle: Callable[[], None] = lambda: None,
) -> Iterator[Slab]:
    """Predict an image.

    Args:
        data: float32 (channels, z, y, x), on any device.
        forward: one function per fold from float32 (batch, channels, *patch) to logits (batch, classes, *patch).
        window: where the tiles are.
        device: where the network works.
        mirror_axes: axes of the patch to mirror along; 0 is the network's first spatial axis.
        batch_size: tiles and mirrored versions of them that the network gets at once.
        sums_in: makes the sums: by default on the device.
        settle: called when tiles have been cut out of the data.

    Raises:
        DataError: the logits are not finite.
        PluginError: a network returned another shape than it must.
    """
    sizes, patch, order = window.padded_shape, window.patch, window.order
    starts = [window.starts(a) for a in order]
    if data.nbytes <= IMAGE_SHARE * free_memory(device):
        data = sent(data, device)
    data = data.permute(0, *(a + 1 for a in order))
    rolling, thickness = starts[0], patch[window.axis]
    groups, _ = _groups(window)
    kept = sums_in(sums_shape(window, classes), device)
    sums = kept.values
    weights = [
        [sent(torch.from_numpy(w), sums.device) for w in tile_weights(sizes[a], patch[a], s)]
        for a, s in zip(order, starts, strict=True)
    ]
    network = _Averaged(forward, mirror_axes, classes, window, batch_size)
    for group, following in zip(groups, [*groups[1:], None], strict=True):
        base = rolling[group[0]]
        tiles = list(product(range(len(starts[1])), range(len(starts[2])), group))
        for first in range(0, len(tiles), network.tiles):
            batch = tiles[first : first + network.tiles]
            corners = [(rolling[k], starts[1][i], starts[2][j]) for i, j, k in batch]
            inputs = _there(torch.stack([_tile(data, corner, window) for corner in corners]), device)
            settle()
            logits = network(inputs)
            for (i, j, k), corner, tile in zip(batch, corners, logits, strict=True):
                weight = (weights[0][k] / network.count)[:, None, None] * (weights[1][i][:, None] * weights[2][j])
                place = _box((corner[0] - base, *corner[1:]), [patch[a] for a in order])
                for one in range(0, classes, kept.classes):
                    some = slice(one, one + kept.classes)
                    sums[some][place].addcmul_(tile[some].to(sums.device), weight)
                    kept.settle()
        done = (rolling[group[-1]] + thickness if following is None else rolling[following[0]]) - base
        for first in range(0, done, kept.rows):
            slab = _unpadded(sums[:, first : min(first + kept.rows, done)], base + first, window)
            if slab.logits.shape[1]:  # none where all is padding, or tiles coincide
                _check_finite(slab, window)
                yield slab
                kept.settle()
        if following is not None and done:
            _advance(kept, done)


class _Averaged:
    """Sums a network's logits over folds and mirrored inputs, in the window's order of axes.

    `tiles` is the number of tiles to be given at once; mirrored versions of them fill the batch up.
    """

    def __init__(
        self,
        forward: Sequence[Forward],
        mirror_axes: Sequence[int],
        classes: int,
        window: Window,
        batch_size: int,
    ) -> None:
        self._forward = forward
        self._mirrorings = [tuple(a + 2 for a in m) for m in mirrorings(mirror_axes)]
        self._classes = classes
        self._flat = window.flat
        self._order = (0, 1, *(a + 2 for a in window.order))
        self._back = tuple(self._order.index(a) for a in range(5))
        self.count = len(self._mirrorings) * len(forward)
        self.tiles = max(1, batch_size // len(self._mirrorings))
        self._versions = max(1, batch_size // self.tiles)

    def __call__(self, inputs: Tensor) -> Tensor:
        """(batch, channels, *patch) to (batch, classes, *patch), float32: a sum of `count` outputs."""
        x = inputs.permute(self._back)
        x = (x.squeeze(2) if self._flat else x).contiguous()
        total = self._checked(self._forward[0](x), x).float() if self.count == 1 else self._sum(x)
        return (total.unsqueeze(2) if self._flat else total).permute(self._order)

    def _sum(self, x: Tensor) -> Tensor:
        total = torch.zeros((len(x), self._classes, *x.shape[2:]), device=x.device)
        # flipping copies: on a CPU one class at a time stays in its cache, a GPU is asked as seldom as possible
        together = self._classes if x.is_cuda else 1
        for first in range(0, len(self._mirrorings), self._versions):
            versions = self._mirrorings[first : first + self._versions]
            batch = torch.cat([x.flip(axes) if axes else x for axes in versions]) if versions != [()] else x
            for forward in self._forward:
                outputs = torch.split(self._checked(forward(batch), batch), len(x))
                for axes, logits in zip(versions, outputs, strict=True):
                    if not axes:
                        total += logits
                        continue
                    for mine, part in zip(
                        torch.split(total, together, 1), torch.split(logits, together, 1), strict=True
                    ):
                        mine.add_(part.flip(axes))
        return total

    def _checked(self, logits: Tensor, x: Tensor) -> Tensor:
        expected = (x.shape[0], self._classes, *x.shape[2:])
        if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise PluginError(f"the network returned {found}, expected a tensor of shape {expected}")
        return logits


def _tile(data: Tensor, corner: Sequence[int], window: Window) -> Tensor:
    """What the network sees at a corner of the padded image; all axes in the window's order."""
    patch, padding = [window.patch[a] for a in window.order], [window.padding[a] for a in window.order]
    # axes that are smaller than the patch have one tile, all of it
    inside = [p if sum(pad) == 0 else p - sum(pad) for p, pad in zip(patch, padding, strict=True)]
    tile = data[_box(corner, inside)]
    if inside == patch:
        return tile
    return torch.nn.functional.pad(tile, [n for pair in reversed(padding) for n in pair])


def _there(tiles: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for the tiles before."""
    return sent(tiles.pin_memory() if device.type == "cuda" and not tiles.is_cuda else tiles, device)


def _box(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(c, c + s) for c, s in zip(corner, size, strict=True)))


def _unpadded(sums: Tensor, base: int, window: Window) -> Slab:
    """The part of finished sums, which begin at `base` of the padded image, that lies in the image."""
    axis, *others = window.order
    before = window.padding[axis][0]
    low = max(base, before)
    high = max(low, min(base + sums.shape[1], before + window.shape[axis]))
    inside = [slice(window.padding[a][0], window.padding[a][0] + window.shape[a]) for a in others]
    return Slab(low - before, sums[:, low - base : high - base, inside[0], inside[1]])


def _check_finite(slab: Slab, window: Window) -> None:
    low, high = torch.aminmax(slab.logits)  # both are NaN if any value is
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        last = slab.start + slab.logits.shape[1] - 1
        raise DataError(
            f"the network's output is not finite (lowest {low.item()}, highest {high.item()}) in slices {slab.start} "
            f"to {last} along axis {window.axis} of the preprocessed image; no segmentation was made of it. Check the "
            "image's intensities and the training log; --precision fp32 helps if only lower precision overflows"
        )


def _advance(kept: Sums, done: int) -> None:
    """Move what is not finished to the front and clear the rest, without a second array."""
    span = kept.values.shape[1]
    for sums in kept.values:
        for to in range(0, span - done, done):  # in steps of `done`, so that no block overlaps its source
            stop = min(to + done, span - done)
            sums[to:stop] = sums[to + done : stop + done]
        sums[span - done :] = 0
        kept.settle()
