"""Removes labels that are too small to be true."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from segplug import Component, hookimpl
from segplug.model import Labels, LabelSet
from segplug.protocols import Decision, Postprocessor


class SmallestSize:
    """A label with fewer voxels than a share of its smallest reference becomes background."""

    def __init__(self, share: float = 0.1) -> None:
        self.share = share

    def fit(self, pairs: Sequence[tuple[Labels, Labels]], labels: LabelSet) -> Decision:
        """Measure the smallest reference of each label."""
        smallest: dict[str, int] = {}
        for reference, _ in pairs:
            for label in labels.foreground_labels:
                size = int(np.count_nonzero(reference.array == label))
                if size:
                    smallest[str(label)] = min(size, smallest.get(str(label), size))
        return {"smallest": smallest}

    def apply(self, prediction: Labels, decision: Decision, labels: LabelSet) -> Labels:
        """Return a cleaned copy."""
        array = prediction.array.copy()
        for label, size in decision["smallest"].items():
            found = array == int(label)
            if np.count_nonzero(found) < self.share * size:
                array[found] = 0
        return dataclasses.replace(prediction, array=array)


@hookimpl
def segplug_postprocessors() -> Iterator[Component[Postprocessor]]:
    yield Component("smallest_size", f"{__name__}:SmallestSize", "drop labels that are too small to be true")
