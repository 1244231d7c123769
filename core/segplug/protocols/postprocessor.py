"""Postprocessors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from segplug.model import Labels, LabelSet

Decision = Mapping[str, Any]
"""What `fit` decided, as JSON values; stored in postprocessing.json and given to `apply`."""


class Postprocessor(Protocol):
    """Decides on validation predictions what clean-up helps, and applies it to others."""

    def fit(self, pairs: Sequence[tuple[Labels, Labels]], labels: LabelSet) -> Decision:
        """Decide from pairs of (reference, prediction). Deterministic.

        The sequence reads a pair when it is indexed and keeps none, so pass over it rather than hold its items.
        """
        ...

    def apply(self, prediction: Labels, decision: Decision, labels: LabelSet) -> Labels:
        """Return the cleaned-up prediction; the one given stays as it is."""
        ...
