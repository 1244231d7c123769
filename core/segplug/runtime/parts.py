"""Cases divided among calls that know nothing of each other: processes, GPUs, machines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from segplug.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One of `count` parts, counted from 1; the default is all of it.

    Parts of the same sorted cases have no case in common, and all parts together have every one.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """`2/4` is the second of four parts.

        Raises:
            UsageError: it is no such text.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--part {text}: expected K/N with K from 1 to N; 1/4, 2/4, 3/4 and 4/4 are all there are")
        return cls(int(found[1]), int(found[2]))

    @property
    def whole(self) -> bool:
        return self.count == 1

    def of(self, cases: Sequence[T]) -> Sequence[T]:
        """Every `count`-th case, as nnU-Net divides them."""
        return cases[self.number - 1 :: self.count]

    def __str__(self) -> str:
        return f"part {self.number} of {self.count}"


WHOLE = Part()
