"""Splitters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from segplug.model import Split


class Splitter(Protocol):
    """A function from case names (sorted) to folds. The same names always give the same folds."""

    def __call__(self, cases: Sequence[str]) -> list[Split]: ...
