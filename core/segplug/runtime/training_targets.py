"""From label maps of a batch to what losses and scores compare with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segplug.model import LabelSet


def downsample(target: Tensor, shape: Sequence[int]) -> Tensor:
    """Take labels (batch, 1, *spatial) at the voxel centres of a coarser grid, as torch's `nearest-exact` does.

    Whole steps give a view, without a copy.
    """
    for axis, (size, wanted) in enumerate(zip(target.shape[2:], shape, strict=True), start=2):
        if wanted == size:
            continue
        if size % wanted == 0:
            step = size // wanted
            target = target[(slice(None),) * axis + (slice(step // 2, None, step),)]
        else:
            centres = (torch.arange(wanted, dtype=torch.float32, device=target.device) + 0.5) * (size / wanted)
            target = target.index_select(axis, centres.long().clamp_max(size - 1))
    return target


def valid_voxels(target: Tensor, labels: LabelSet) -> Tensor | None:
    """Where something is annotated: bool of the target's shape; None for a data set without an ignore label."""
    return None if labels.ignore_label is None else target != labels.ignore_label


def encode_regions(target: Tensor, labels: LabelSet) -> Tensor:
    """Labels (batch, 1, *spatial) -> float32 (batch, regions, *spatial), 1 inside a region."""
    encoded = torch.empty((target.shape[0], len(labels.regions), *target.shape[2:]), device=target.device)
    for channel, region in enumerate(labels.regions):
        members = region if isinstance(region, tuple) else (region,)
        inside = target[:, 0] == members[0]
        for member in members[1:]:
            inside = inside | (target[:, 0] == member)
        encoded[:, channel] = inside
    return encoded


def count_overlap(logits: Tensor, target: Tensor, labels: LabelSet) -> Tensor:
    """Voxels of a batch that are true positive, false positive and false negative, per foreground class or region.

    Args:
        logits: (batch, classes, *spatial).
        target: (batch, 1, *spatial) integer labels; voxels with the ignore label are in no count.

    Returns:
        int64 (3, classes scored), on the device of the logits.
    """
    valid = valid_voxels(target, labels)
    if labels.has_regions:
        axes = (0, *range(2, logits.ndim))
        predicted, true = logits > 0, encode_regions(target, labels) > 0
        if valid is not None:
            predicted, true = predicted & valid, true & valid
        tp = (predicted & true).sum(axes)
        return torch.stack([tp, predicted.sum(axes) - tp, true.sum(axes) - tp])
    classes = logits.shape[1]
    predicted, true = logits.argmax(1), target[:, 0]
    if logits.device.type != "cpu":
        return _count_each(predicted, true, None if valid is None else valid[:, 0], classes)
    pairs = true.long() * classes + predicted
    if valid is not None:
        pairs = pairs[valid[:, 0]]
    table = torch.bincount(pairs.flatten(), minlength=classes * classes).view(classes, classes)
    tp = table.diagonal()
    return torch.stack([tp, table.sum(0) - tp, table.sum(1) - tp])[:, 1:]


def _count_each(predicted: Tensor, true: Tensor, valid: Tensor | None, classes: int) -> Tensor:
    """The same, class by class, without waiting for the device: a table of pairs has to know its size."""
    counts = []
    for label in range(1, classes):
        here, there = predicted == label, true == label
        if valid is not None:
            here, there = here & valid, there & valid
        tp = (here & there).sum()
        counts.append(torch.stack([tp, here.sum() - tp, there.sum() - tp]))
    return torch.stack(counts, 1)
