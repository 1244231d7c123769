"""Changes of intensity, in place, of rows (rows, *spatial): channels of samples, each by its own value."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-7
"""nnU-Net's smallest divisor in the gamma transform."""


def scale_brightness(rows: Tensor, factor: Tensor) -> None:
    """Multiply by a factor (rows,)."""
    rows.flatten(1).mul_(factor[:, None])


def stretch_contrast(rows: Tensor, factor: Tensor, keep_range: bool = True) -> None:
    """Stretch about the mean by a factor (rows,), clipped to the row's former range if that is to be kept."""
    flat = rows.flatten(1)
    mean = flat.mean(1, keepdim=True)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    flat.sub_(mean).mul_(factor[:, None]).add_(mean)
    if keep_range:
        torch.clamp(flat, low, high, out=flat)


def apply_gamma(rows: Tensor, exponent: Tensor, inverted: bool) -> None:
    """Raise intensities, scaled to 0..1, to an exponent (rows,); mean and standard deviation stay what they were.

    Args:
        inverted: scale the negated intensities.
    """
    flat = rows.flatten(1)
    mean, deviation = _statistics(flat)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    span = high - low
    sign = -1.0 if inverted else 1.0
    flat.sub_(high if inverted else low).mul_(sign / span.clamp(min=EPSILON)).pow_(exponent[:, None])
    new_mean, new_deviation = _statistics(flat)
    # what nnU-Net does in steps: back to the former range, then to the former mean and deviation
    flat.sub_(new_mean).mul_(sign * span * deviation / (new_deviation * span).clamp(min=EPSILON)).add_(mean)


def add_noise(sample: Tensor, deviation: float, seed: int) -> None:
    """Add Gaussian noise, independent per voxel and channel."""
    random = torch.Generator(sample.device).manual_seed(seed)
    sample.add_(torch.empty_like(sample).normal_(0, deviation, generator=random))


def _statistics(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (n - 1) of each row. Several times as quick as torch's own."""
    mean = flat.mean(1, keepdim=True)
    norm = torch.linalg.vector_norm(flat - mean, dim=1, keepdim=True)
    return mean, norm / max(flat.shape[1] - 1, 1) ** 0.5
