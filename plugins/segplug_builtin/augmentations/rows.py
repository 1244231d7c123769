"""Changes of a batch's channels, all at once or sample by sample, by what was drawn for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segplug.protocols import Parameters
from segplug.runtime.device import sent

Change = Callable[[Tensor, NDArray[np.float64]], Tensor | None]
"""Of rows (rows, *spatial) by a value per row: the changed rows, or None if they were changed in place."""


def change_rows(data: Tensor, parameters: Sequence[Parameters], name: str, neutral: float, change: Change) -> None:
    """Change the channels of `data` whose drawn value is not `neutral`, all at once."""
    channels = data.shape[1]
    rows, values = [], []
    for sample, drawn in enumerate(parameters):
        if name in drawn:
            for channel in np.flatnonzero(np.any(np.reshape(drawn[name], (channels, -1)) != neutral, axis=1)):
                rows.append(sample * channels + int(channel))
                values.append(drawn[name][channel])
    if not rows:
        return
    flat = data.flatten(0, 1)
    adjoining = rows[-1] - rows[0] == len(rows) - 1
    chosen: Any = slice(rows[0], rows[-1] + 1) if adjoining else sent(torch.tensor(rows), data.device)
    part = flat[chosen]
    changed = change(part, np.asarray(values))
    if changed is not None or not adjoining:
        flat[chosen] = part if changed is None else changed


def by_tensor(change: Callable[[Tensor, Tensor], None]) -> Change:
    """For changes that take their values as a tensor on the rows' device."""
    return lambda rows, values: change(rows, sent(torch.from_numpy(values.astype(np.float32)), rows.device))


def mirror(data: Tensor, maps: Tensor, parameters: Sequence[Parameters]) -> None:
    """Mirror images and label maps of the samples for which `mirror` was drawn: a bool per spatial axis."""
    for sample, drawn in enumerate(parameters):
        axes = [axis + 1 for axis, mirrored in enumerate(drawn.get("mirror", ())) if mirrored]
        if axes:
            data[sample] = data[sample].flip(axes)
            maps[sample] = maps[sample].flip(axes)
