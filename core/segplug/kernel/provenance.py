"""Which plugin stood behind each component when something was made, and whether that is still so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from segplug.errors import PluginError, SegplugError, WrongReferenceError
from segplug.kernel.plugins import Provided
from segplug.kernel.registry import Registry

ACCEPT = "accept the change with --allow-provider-change"
FIELDS = ("kind", "name", "plugin", "distribution", "version")  # of a component used; the name is what it was asked by


def record(used: Iterable[Provided]) -> list[dict[str, str]]:
    """The JSON form that stands in plans and checkpoints."""
    found = ((each.kind.name, each.asked or each.component.name, each.plugin) for each in used)
    return [dict(zip(FIELDS, (*asked, by.name, by.distribution, by.version), strict=True)) for *asked, by in found]


def differences(recorded: Sequence[Mapping[str, Any]], registry: Registry) -> list[str]:
    """What would now be provided by another plugin than when it was recorded, one text each.

    A newer version of the same plugin is no difference here: plugins answer for their own compatibility.
    """
    return [text for text, _ in _compare(recorded, registry)]


def require_same(
    recorded: Sequence[Mapping[str, Any]], registry: Registry, what: str, allow_change: bool, way_out: str = ACCEPT
) -> list[str]:
    """Refuse other providers than the recorded ones, unless allowed (`way_out` says how); returns what differs.

    Raises:
        PluginError: providers differ and `allow_change` is False, or a component has none that could be allowed.
    """
    found = list(_compare(recorded, registry))
    can_change = all(provided for _, provided in found)
    if found and not (allow_change and can_change):
        listed = "\n  ".join(text for text, _ in found)
        back = f"Install those plugins, pin them in segplug.toml, or {way_out}"
        raise PluginError(f"{what} was made with other plugins:\n  {listed}" + f"\n{back}" * can_change)
    return [text for text, _ in found]


def _compare(recorded: Sequence[Mapping[str, Any]], registry: Registry) -> Iterator[tuple[str, bool]]:
    """What differs, and whether anything provides it now."""
    for entry in recorded:
        kind, name, plugin, distribution, version = (str(entry.get(field, "?")) for field in FIELDS)
        was = f"{kind}: {name!r} was provided by plugin {plugin!r} ({distribution} {version})"
        trouble = there.trouble if (there := registry.plugin(plugin, distribution)) else ""
        try:
            now = registry.find(kind, name).plugin
        except SegplugError as error:
            lacks = there is None or isinstance(error, WrongReferenceError)
            remedy = trouble or f"Install it: pip install {distribution}=={version}" * lacks
            yield f"{was}; now: {error} {remedy}".rstrip(), False
            continue
        if now.name != plugin:
            is_now = f"{was}; now it is {now.name!r} ({now.distribution} {now.version})"
            yield f"{is_now}. {trouble}" if trouble else is_now, True
