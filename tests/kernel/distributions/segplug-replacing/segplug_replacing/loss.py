"""Imports torch, so that a listing that imports it is found out."""

from __future__ import annotations

import torch


class Overlap:
    """One minus the mean probability of the right class."""

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        right = torch.softmax(logits, dim=1).gather(1, target)
        return 1 - right.pow(self.power).mean()
