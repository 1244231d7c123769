"""A batch on its way: as arrays between processes, in memory for a device to read, on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from segplug.protocols import Batch
from segplug.runtime.device import sent

if TYPE_CHECKING:
    import torch


def as_tensors(item: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A loader's item with tensors for its arrays, in memory that a GPU reads by itself if they are for one."""
    import torch

    def tensor(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        here = torch.from_numpy(value)
        return here.pin_memory() if device.type == "cuda" else here

    arrays = {key: tensor(item[key]) for key in ("data", "target", "previous")}
    return {**item, **arrays, "extra": {key: tensor(value) for key, value in item["extra"].items()}}


def as_batch(item: Mapping[str, Any], device: torch.device) -> Batch:
    """The batch of an item with tensors, on a device."""

    def there(value: Any) -> Any:
        return sent(value, device) if hasattr(value, "numpy") else value

    extra = {key: there(value) for key, value in item["extra"].items()}
    return Batch(there(item["data"]), there(item["target"]), item["cases"], there(item["previous"]), extra)


def as_item(batch: Batch) -> dict[str, Any]:
    """What stands for a batch between processes: arrays for tensors, for torch would send them in ways of its own."""

    def array(value: Any) -> Any:
        return value.numpy() if hasattr(value, "numpy") else value

    parts = {"data": array(batch.data), "target": array(batch.target), "previous": array(batch.previous)}
    return {**parts, "cases": batch.cases, "extra": {key: array(value) for key, value in batch.extra.items()}}
