"""Finds plugins, loads them, and keeps a record of each, whatever became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from importlib.metadata import Distribution, distributions
from typing import Any

import pluggy

from segplug.kernel import hookspecs
from segplug.kernel.component import API_VERSION, PROJECT, Component
from segplug.kernel.kinds import KINDS, Kind

ENTRY_POINT_GROUP = "segplug"
BUILTIN = "builtin"
BUILTIN_MODULES = ("segplug_builtin",)
"""Loaded first, from this tuple alone: no entry point can claim to be built in."""


class State(str, Enum):
    """What became of a plugin."""

    ACTIVE = "active"
    BROKEN = "broken"
    INCOMPATIBLE = "incompatible"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class PluginRecord:
    """One installed plugin: where it comes from and whether it can be used.

    `reason` says why it is not active; it is empty for an active plugin.
    """

    name: str
    module: str
    distribution: str
    version: str
    state: State = State.ACTIVE
    reason: str = ""

    @property
    def builtin(self) -> bool:
        return self.name == BUILTIN


@dataclass(frozen=True)
class Provided:
    """A component together with the plugin that provides it."""

    kind: Kind
    component: Component[Any]
    plugin: PluginRecord

    @property
    def qualified_name(self) -> str:
        """`plugin:name`, which names this one and no other."""
        return f"{self.plugin.name}:{self.component.name}"

    def answers_to(self, name: str) -> bool:
        return name == self.component.name or name in self.component.aliases


class PluginHost:
    """pluggy's manager plus the records. Loading a plugin never raises; what went wrong stands in its record."""

    def __init__(self, *, block: Iterable[str] = (), discover: bool = True) -> None:
        self._block = frozenset(block)
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.records: dict[str, PluginRecord] = {}
        self.provided: list[Provided] = []
        for module in BUILTIN_MODULES:
            self._register(import_module(module), PluginRecord(BUILTIN, module, "segplug", _own_version()))
        for record in installed_plugins() if discover else ():
            self.load(record)

    @property
    def hook(self) -> pluggy.HookRelay:
        return self._manager.hook

    def load(self, record: PluginRecord) -> PluginRecord:
        """Import and register an installed plugin; returns its record as it then stands."""
        if record.name in self._block:
            return self._keep(record, State.BLOCKED, "blocked in the settings ([plugins] block)")
        if record.name in self.records:
            other = self.records[record.name]
            reason = (
                f"the plugin name {record.name!r} is reserved for segplug itself"
                if other.builtin
                else f"the plugin name {record.name!r} is also claimed by {other.distribution} {other.version}"
            )
            # kept under a name of its own, so that neither hides the other
            record = PluginRecord(f"{record.name}@{record.distribution}", *_but_name(record))
            return self._keep(record, State.BROKEN, reason)
        try:
            plugin = import_module(record.module)
        except Exception as error:  # anything a stranger's import can raise
            return self._keep(record, State.BROKEN, f"cannot be imported: {type(error).__name__}: {error}")
        return self._register(plugin, record)

    def register(self, plugin: object, name: str) -> PluginRecord:
        """Register a plugin object of this process: a progress display, or a plugin under test."""
        return self._register(plugin, PluginRecord(name, type(plugin).__module__, "(this process)", "-"))

    def _register(self, plugin: object, record: PluginRecord) -> PluginRecord:
        speaks = getattr(plugin, "segplug_api_version", API_VERSION)
        if speaks != API_VERSION:
            reason = f"speaks plugin API version {speaks}; this segplug speaks {API_VERSION}"
            return self._keep(record, State.INCOMPATIBLE, reason)
        try:
            self._manager.register(plugin, record.name)
            self._refuse_unknown_hooks(plugin)
            provided = list(self._collect(record))
        except Exception as error:
            if self._manager.has_plugin(record.name):
                self._manager.unregister(name=record.name)
            return self._keep(record, State.BROKEN, f"{type(error).__name__}: {error}")
        self.provided += provided
        return self._keep(record, State.ACTIVE, "")

    def _keep(self, record: PluginRecord, state: State, reason: str) -> PluginRecord:
        kept = PluginRecord(*(getattr(record, f) for f in _IDENTITY), state, reason)
        self.records[kept.name] = kept
        return kept

    def _refuse_unknown_hooks(self, plugin: object) -> None:
        for name in dir(plugin):
            marked = self._manager.parse_hookimpl_opts(plugin, name)
            if marked is None or marked.get("optionalhook"):
                continue
            if not hasattr(hookspecs, marked.get("specname") or name):
                raise PluginShapeError(f"hook {name!r} does not exist in segplug")

    def _collect(self, record: PluginRecord) -> Iterator[Provided]:
        """Call the provider hooks of one plugin and check what they yield."""
        for kind in KINDS.values():
            for implementation in getattr(self._manager.hook, kind.hook).get_hookimpls():
                if implementation.plugin_name != record.name:
                    continue
                seen: set[str] = set()
                for component in implementation.function() or ():
                    if not isinstance(component, Component):
                        raise PluginShapeError(f"{kind.hook} yielded {component!r}; expected segplug.Component")
                    if ":" in component.name or not component.name.strip():
                        raise PluginShapeError(f"{kind.hook}: {component.name!r} is no valid component name")
                    names = {component.name, *component.aliases}
                    if names & seen:
                        raise PluginShapeError(f"{kind.hook} yields {sorted(names & seen)} more than once")
                    seen |= names
                    yield Provided(kind, component, record)


class PluginShapeError(Exception):
    """A plugin's hooks are not what the specification says."""


_IDENTITY = ("name", "module", "distribution", "version")


def _but_name(record: PluginRecord) -> tuple[str, str, str]:
    return record.module, record.distribution, record.version


def _own_version() -> str:
    from segplug import __version__

    return __version__


def installed_plugins(found: Iterable[Distribution] | None = None) -> list[PluginRecord]:
    """Plugins announced by the installed distributions, in a fixed order; nothing is imported."""
    records = {}
    for distribution in distributions() if found is None else found:
        name = distribution.metadata["Name"] or "?"
        for point in distribution.entry_points:
            if point.group == ENTRY_POINT_GROUP:
                record = PluginRecord(point.name, point.value, name, distribution.version)
                records.setdefault((name, point.name), record)
    return [records[key] for key in sorted(records)]
