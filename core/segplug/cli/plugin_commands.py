"""Commands that plugins bring, read from their metadata: none is imported here, and no library is."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from segplug.errors import SegplugError

COMMAND_GROUP = "segplug.commands"
PLUGIN_GROUP = "segplug"


def command_points() -> list[EntryPoint]:
    """Entry points of commands, each once, by name and distribution."""
    found = {(p.name, p.dist.name, p.value): p for p in entry_points(group=COMMAND_GROUP) if p.dist}
    return [found[key] for key in sorted(found)]


def blocking(point: EntryPoint, block: Iterable[str]) -> str:
    """Name of the plugin that is blocked in the settings and which a command belongs to; empty if there is none.

    A command belongs to the plugins of its distribution; of several, to those in its own package. One of them that is
    not blocked keeps it.
    """
    blocked = set(block)
    owners = _owners(point) if blocked else []
    free = [p for p in owners if blocked.isdisjoint((p.name, f"{p.name}@{_distribution(p)}"))]
    return "" if free or not owners else owners[0].name


def described(points: Iterable[EntryPoint]) -> str:
    """The distributions of some commands, with versions."""
    return " and ".join(f"{p.dist.name} {p.dist.version}" for p in points if p.dist)


def load_command(name: str, points: Iterable[EntryPoint], block: Iterable[str]) -> Any:
    """Import the app of a command.

    Args:
        points: all that claim the name.
        block: names of plugins that are not to be loaded.

    Raises:
        SegplugError: it is blocked, several claim the name, it cannot be imported, or it is no app.
    """
    import typer

    points = list(points)
    allowed = [point for point in points if not blocking(point, block)]
    if not allowed:
        owner = f"plugin {blocking(points[0], block)!r} ({described(points[:1])})"
        raise SegplugError(
            f"command {name!r} is of {owner}, which is blocked in the settings; remove it from [plugins] block"
        )
    if len(allowed) > 1:
        raise SegplugError(
            f"command {name!r} is claimed by several packages: {described(allowed)}; block or uninstall one"
        )
    point = allowed[0]
    try:
        app = point.load()
    except (Exception, SystemExit) as error:  # anything a stranger's import can raise
        where = f"command {name!r} of {described([point])}"
        raise SegplugError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(app, typer.Typer):
        raise SegplugError(f"command {name!r}: {point.value} is a {type(app).__name__}; expected a typer.Typer")
    return app


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else ""


def _owners(point: EntryPoint) -> list[EntryPoint]:
    of_distribution = [p for p in entry_points(group=PLUGIN_GROUP) if _distribution(p) == _distribution(point)]
    package = point.module.partition(".")[0]
    return [p for p in of_distribution if p.module.partition(".")[0] == package] or of_distribution
