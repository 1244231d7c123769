"""Resampling of logits slab by slab: along the window's axis as soon as enough has arrived, then along the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segplug.runtime.device import sent

VALUES_AT_ONCE = 1 << 22
"""Logits worked on together at the original resolution: 16 MB, that a CPU's caches hold from one step to the next."""

VALUES_AT_ONCE_ON_GPU = 1 << 26
"""The same on a GPU, where few large steps are fast."""

_BLOCK = 16
"""Rows of a banded matrix that are multiplied together: the fewer, the fewer zeros; measured on a CPU."""

Place = tuple[slice, slice]
"""Where a piece of the result lies along the first two axes; it spans the third."""


class _Axis:
    """Resampling along one axis: a matrix whose rows are nonzero in a narrow band."""

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        nonzero = matrix != 0
        self.matrix = torch.from_numpy(matrix)
        self.first = nonzero.argmax(1)
        self.stop = np.maximum.accumulate(matrix.shape[1] - nonzero[:, ::-1].argmax(1))
        self.n_new, self.n_old = matrix.shape
        self._blocks: dict[torch.device, list[tuple[slice, slice, Tensor]]] = {}

    def rows(self, start: int, stop: int) -> tuple[int, int]:
        """The old samples that new samples start..stop are made of."""
        return int(self.first[start:stop].min()), int(self.stop[start:stop].max())

    def apply(self, x: Tensor) -> Tensor:
        """Resample the last axis."""
        if x.device not in self._blocks:
            self._blocks[x.device] = [self.block(i, min(i + _BLOCK, self.n_new)) for i in range(0, self.n_new, _BLOCK)]
            self._blocks[x.device] = [(new, old, sent(block, x.device)) for new, old, block in self._blocks[x.device]]
        result = torch.empty((*x.shape[:-1], self.n_new), dtype=x.dtype, device=x.device)
        for new, old, block in self._blocks[x.device]:
            result[..., new] = torch.matmul(x[..., old], block.T)
        return result

    def block(self, start: int, stop: int) -> tuple[slice, slice, Tensor]:
        """New samples start..stop, the old samples that they are made of, and the weights."""
        old = slice(*self.rows(start, stop))
        return slice(start, stop), old, self.matrix[start:stop, old].contiguous()


class SlabResampling:
    """Resamples slabs along their first axis as soon as the next slices allow it, and along the others."""

    def __init__(self, matrices: Sequence[NDArray[np.float32] | None]) -> None:
        self._along, self._second, self._third = (None if m is None else _Axis(m) for m in matrices)
        self._kept: Tensor | None = None  # slices that are still needed
        self._arrived = 0
        self._done = 0

    def push(self, slab: Tensor) -> Iterator[tuple[Place, Tensor]]:
        """Take (classes, thickness, a, b); yield pieces (classes, slices, rows, new b) and where they lie."""
        classes, _, a, b = slab.shape
        new_a = a if self._second is None else self._second.n_new
        new_b = b if self._third is None else self._third.n_new
        most = VALUES_AT_ONCE if slab.device.type == "cpu" else VALUES_AT_ONCE_ON_GPU
        slices = max(1, most // (classes * max(a * b, new_a * new_b)))
        rows = max(1, most // (classes * slices * new_b))
        rows = max(_BLOCK, rows - rows % _BLOCK)
        for piece in torch.split(slab, slices, dim=1):
            for first, lengthened in self._lengthen(piece, slices):
                for row in range(0, new_a, rows):
                    second = slice(row, min(row + rows, new_a))
                    yield (first, second), self._widen(lengthened, second)

    def _widen(self, x: Tensor, rows: slice) -> Tensor:
        """Resample (classes, slices, a, b) along its last two axes; only these new rows."""
        if self._second is None:
            part = x[:, :, rows]
            return part if self._third is None else self._third.apply(part)
        low, high = self._second.rows(rows.start, rows.stop)
        part = x[:, :, low:high] if self._third is None else self._third.apply(x[:, :, low:high])
        result = torch.empty((*x.shape[:2], rows.stop - rows.start, part.shape[3]), dtype=x.dtype, device=x.device)
        for start in range(rows.start, rows.stop, _BLOCK):
            new, old, block = self._second.block(start, min(start + _BLOCK, rows.stop))
            made = torch.matmul(sent(block, x.device), part[:, :, old.start - low : old.stop - low])
            result[:, :, new.start - rows.start : new.stop - rows.start] = made
        return result

    def _lengthen(self, piece: Tensor, at_once: int) -> Iterator[tuple[slice, Tensor]]:
        """Resample along the first axis as far as the slices that have arrived reach."""
        self._arrived += piece.shape[1]
        if self._along is None:
            yield slice(self._arrived - piece.shape[1], self._arrived), piece
            return
        window = piece if self._kept is None else torch.cat((self._kept, piece), 1)
        origin = self._arrived - window.shape[1]
        flat = window.flatten(2)
        while self._done < self._along.n_new and self._along.stop[self._done] <= self._arrived:
            start = self._done
            ready = int(np.searchsorted(self._along.stop[start : start + at_once], self._arrived, side="right"))
            new, old, block = self._along.block(start, start + ready)
            made = torch.matmul(sent(block, piece.device), flat[:, old.start - origin : old.stop - origin])
            self._done += ready
            yield new, made.reshape(*made.shape[:2], *window.shape[2:])
        if self._done < self._along.n_new:
            needed = int(self._along.first[self._done :].min())
            self._kept = window[:, max(needed - origin, 0) :].clone()
