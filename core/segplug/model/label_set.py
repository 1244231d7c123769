"""What the numbers in a label map mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class LabelSet:
    """Labels of a data set as dataset.json gives them, in its order.

    Args:
        values: name -> label, or labels of a region. Holds ``background`` (0) and, for sparse annotation, ``ignore``.
        regions_class_order: with regions, the label written for each region, later ones over earlier ones.
    """

    values: Mapping[str, int | tuple[int, ...]]
    regions_class_order: tuple[int, ...] = ()

    @cached_property
    def has_regions(self) -> bool:
        """True if any label is a set of several labels (nnU-Net's rule)."""
        return any(isinstance(v, tuple) and len(v) > 1 for v in self.values.values())

    @cached_property
    def ignore_label(self) -> int | None:
        """The label that marks voxels nobody annotated, or None."""
        value = self.values.get("ignore")
        return value if isinstance(value, int) else None

    @cached_property
    def all_labels(self) -> tuple[int, ...]:
        """Every label that may stand in a label map, ignore left out; sorted, background first."""
        found: set[int] = {0}
        for name, value in self.values.items():
            if name != "ignore":
                found.update(value if isinstance(value, tuple) else (value,))
        return tuple(sorted(found))

    @cached_property
    def foreground_labels(self) -> tuple[int, ...]:
        return tuple(v for v in self.all_labels if v != 0)

    @cached_property
    def label_names(self) -> dict[int, str]:
        """Label -> its name, of those that may stand in a label map, background among them.

        With regions, a label that has no name of its own gets that of the region it is written for.
        """
        found: dict[int, str] = {}
        for name, value in self.values.items():
            single = value if isinstance(value, int) else value[0] if len(value) == 1 else None
            if single is not None and name != "ignore":
                found.setdefault(single, name)
        if self.has_regions:
            for label, region in zip(self.regions_class_order, self.regions, strict=True):
                found.setdefault(label, self.name_of(region))
        return dict(sorted(found.items()))

    @cached_property
    def regions(self) -> tuple[int | tuple[int, ...], ...]:
        """Foreground regions in dataset.json's order (background and ignore left out)."""
        return tuple(v for n, v in self.values.items() if n != "ignore" and v not in (0, (0,)))

    @cached_property
    def classes(self) -> tuple[int | tuple[int, ...], ...]:
        """What is scored: the regions if there are any, else the foreground labels."""
        return self.regions if self.has_regions else self.foreground_labels

    @property
    def output_channels(self) -> int:
        """Channels of the network's output: one per region, or one per label with background."""
        return len(self.regions) if self.has_regions else len(self.all_labels)

    @property
    def output_values(self) -> tuple[int, ...]:
        """The label that each channel of the network's output stands for."""
        return self.regions_class_order if self.has_regions else self.all_labels

    @property
    def output_dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The smaller type that holds every label a prediction can have."""
        return np.uint8 if max((*self.all_labels, *self.regions_class_order)) <= 255 else np.uint16

    def name_of(self, value: int | tuple[int, ...]) -> str:
        """The name dataset.json gives to a label or region."""
        return next((n for n, v in self.values.items() if v == value), str(value))
