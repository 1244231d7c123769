"""Splitters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segplug.model import Split

FOLDS = 5
SEED = 12345


def kfold(cases: Sequence[str], *, folds: int = FOLDS, seed: int = SEED) -> list[Split]:
    """Shuffled cross-validation: the folds that nnU-Net gets from scikit-learn's KFold.

    With fewer cases than folds (nnU-Net refuses) each case is validated once; a single case is both trained on and
    validated.
    """
    names = sorted(cases)
    if len(names) < 2:
        return [Split(tuple(names), tuple(names))] if names else []
    order = np.arange(len(names))
    np.random.RandomState(seed).shuffle(order)  # a newer generator would make other folds than scikit-learn
    splits = []
    for held_out in np.array_split(order, min(folds, len(names))):
        validated = set(held_out.tolist())
        splits.append(
            Split(
                train=tuple(name for i, name in enumerate(names) if i not in validated),
                val=tuple(name for i, name in enumerate(names) if i in validated),
            )
        )
    return splits
