"""A plugin with options of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segplug import hookimpl

OPTIONS: dict[str, Any] = {"experiment": "default"}


@hookimpl
def segplug_configured(options: Mapping[str, Any]) -> None:
    """Keep them; refuse those that do not exist."""
    unknown = set(options) - set(OPTIONS)
    if unknown:
        raise ValueError(f"no option {', '.join(sorted(unknown))}; there is: {', '.join(OPTIONS)}")
    OPTIONS.update(options)
