"""Which plugin stood behind each component when something was made, and whether that is still so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from segplug.errors import PluginError, SegplugError
from segplug.kernel.plugins import Provided
from segplug.kernel.registry import Registry


@dataclass(frozen=True)
class Provenance:
    """One component used: its kind, the name it was asked for by, and the plugin and distribution it came from."""

    kind: str
    name: str
    plugin: str
    distribution: str
    version: str

    @classmethod
    def of(cls, provided: Provided) -> Provenance:
        plugin, name = provided.plugin, provided.asked or provided.component.name
        return cls(provided.kind.name, name, plugin.name, plugin.distribution, plugin.version)


def record(used: Iterable[Provided]) -> list[dict[str, str]]:
    """The JSON form that stands in plans and checkpoints."""
    return [asdict(Provenance.of(provided)) for provided in used]


def differences(recorded: Sequence[Mapping[str, Any]], registry: Registry) -> list[str]:
    """What would now be provided by another plugin than when it was recorded, one text each.

    A newer version of the same plugin is no difference here: plugins answer for their own compatibility.
    """
    found = []
    for entry in recorded:
        then = Provenance(*(str(entry.get(f, "?")) for f in ("kind", "name", "plugin", "distribution", "version")))
        was = f"{then.kind}: {then.name!r} was provided by plugin {then.plugin!r} ({then.distribution} {then.version})"
        try:
            now = Provenance.of(registry.find(then.kind, then.name))
        except SegplugError as error:
            found.append(f"{was}; now: {error} Install it: pip install {then.distribution}=={then.version}")
            continue
        if now.plugin != then.plugin:
            found.append(f"{was}; now it is {now.plugin!r} ({now.distribution} {now.version})")
    return found


def require_same(recorded: Sequence[Mapping[str, Any]], registry: Registry, what: str, allow_change: bool) -> list[str]:
    """Refuse other providers than the recorded ones, unless allowed; returns what differs.

    Raises:
        PluginError: providers differ and `allow_change` is False.
    """
    found = differences(recorded, registry)
    if found and not allow_change:
        listed = "\n  ".join(found)
        raise PluginError(
            f"{what} was made with other plugins:\n  {listed}\n"
            "Install those plugins, pin them in segplug.toml, or accept the change with --allow-provider-change"
        )
    return found
