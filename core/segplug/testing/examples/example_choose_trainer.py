"""Which trainer for which configuration."""

from __future__ import annotations

from segplug import hookimpl
from segplug.model import Plan


@hookimpl
def segplug_choose_trainer(plan: Plan, configuration: str) -> str | None:
    """Train slices by the bare loop, and leave the rest to whoever is asked next."""
    return "plain_loop" if plan.configurations[configuration].dimensions == 2 else None
