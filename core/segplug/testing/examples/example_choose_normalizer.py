"""Which normalizer for which channel."""

from __future__ import annotations

from segplug import hookimpl


@hookimpl
def segplug_choose_normalizer(channel_name: str) -> str | None:
    """Scale PET robustly, and leave other channels to whoever is asked next."""
    return "robust" if channel_name.casefold() == "pet" else None
