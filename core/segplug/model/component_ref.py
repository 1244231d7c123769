"""A component named in a plan or a configuration, with its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ComponentRef:
    """A component's name and the options it is used with. `options` holds JSON values only."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def with_options(self, **options: Any) -> ComponentRef:
        """The same component with further options."""
        return ComponentRef(self.name, {**self.options, **options})
