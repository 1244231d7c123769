"""Finds plugins, loads them, and keeps a record of each, whatever became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import import_module
from importlib.metadata import Distribution, distributions
from typing import Any

import pluggy

from segplug import __version__
from segplug.errors import did_you_mean
from segplug.kernel import hookspecs
from segplug.kernel.component import API_VERSION, PROJECT, Component, locate
from segplug.kernel.kinds import KINDS, Kind

ENTRY_POINT_GROUP = "segplug"
BUILTIN = "builtin"
BUILTIN_MODULES = ("segplug_builtin",)
"""Loaded first, from this tuple alone: no entry point can claim to be built in."""


class State(StrEnum):
    """What became of a plugin."""

    ACTIVE = "active"
    BROKEN = "broken"
    INCOMPATIBLE = "incompatible"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class PluginRecord:
    """One installed plugin: where it comes from and whether it can be used.

    `reason` says why it is not active; it is empty for an active plugin, whose `hooks` are those that it implements.
    """

    name: str
    module: str
    distribution: str
    version: str
    state: State = State.ACTIVE
    reason: str = ""
    hooks: tuple[str, ...] = ()

    @property
    def builtin(self) -> bool:
        return self.name == BUILTIN

    @property
    def full_name(self) -> str:
        """Tells plugins apart whose distributions gave them the same name."""
        return f"{self.name}@{self.distribution}"

    @property
    def trouble(self) -> str:
        """Why it cannot be used; empty for an active one."""
        return f"The {self} is {self.state.value}: {self.reason}" if self.state is not State.ACTIVE else ""

    def is_called(self, name: str) -> bool:
        """Whether a user may mean it: by its name, also where another claims that (`x` of `x@segplug-x`)."""
        return name in (self.name, self.name.removesuffix(f"@{self.distribution}"))

    def __str__(self) -> str:
        return f"plugin {self.name!r} ({self.distribution} {self.version})"


@dataclass(frozen=True)
class Provided:
    """A component together with the plugin that provides it, and the name by which it was `asked` for."""

    kind: Kind
    component: Component[Any]
    plugin: PluginRecord
    asked: str = field(default="", compare=False)

    @property
    def qualified_name(self) -> str:
        """`plugin:name`, which names this one and no other."""
        return f"{self.plugin.name}:{self.component.name}"

    @property
    def names(self) -> frozenset[str]:
        """Every unqualified name it answers to."""
        return frozenset((self.component.name, *self.component.aliases))

    def answers_to(self, name: str) -> bool:
        return name in self.names


class PluginShapeError(Exception):
    """A plugin's hooks are not what the specification says."""


class PluginHost:
    """pluggy's manager plus the records. Loading a plugin never raises; what went wrong stands in its record."""

    def __init__(self, *, block: Iterable[str] = (), discover: bool = True) -> None:
        self._block = frozenset(block)
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._manager.add_hookspecs(hookspecs.Providers)
        self._manager.add_hookspecs(import_module("segplug.protocols.events"))
        self.records: dict[str, PluginRecord] = {}
        self.provided: list[Provided] = []
        for module in BUILTIN_MODULES:
            builtin = self._register(import_module(module), PluginRecord(BUILTIN, module, "segplug", __version__))
            if builtin.reason:
                raise RuntimeError(f"{builtin} is broken: {builtin.reason}")
        found = installed_plugins() if discover else []
        self.blocked_in_vain = sorted(self._block - {n for r in found for n in (r.name, r.full_name)})
        for record in found:
            self._load(record, [other for other in found if other.name == record.name and other is not record])

    @property
    def hook(self) -> pluggy.HookRelay:
        return self._manager.hook

    def register(self, plugin: object, name: str) -> PluginRecord:
        """Register a plugin object of this process: a progress display, or a plugin under test."""
        return self._register(plugin, PluginRecord(name, type(plugin).__module__, "(this process)", "-"))

    def _load(self, record: PluginRecord, rivals: Sequence[PluginRecord]) -> PluginRecord:
        """Import and register an installed plugin. Of several that claim one name none is taken."""
        kept = replace(record, name=record.full_name) if rivals or record.builtin else record
        if not self._block.isdisjoint((record.name, record.full_name)):
            return self._keep(kept, State.BLOCKED, "blocked in the settings; remove it from block in segplug.toml")
        if record.builtin or ":" in record.name:
            return self._keep(kept, State.BROKEN, f"a plugin cannot be called {record.name!r}")
        if also := [f"{r.distribution} {r.version}" for r in rivals if r.full_name not in self._block]:
            either = " or ".join(f"'{r.full_name}'" for r in (record, *rivals))
            reason = f"the name {record.name!r} is also claimed by {' and '.join(also)}; block one ({either})"
            return self._keep(kept, State.BROKEN, reason)
        try:
            plugin = locate(record.module)
        except (Exception, SystemExit) as error:  # anything a stranger's import can raise
            return self._keep(record, State.BROKEN, f"cannot be imported: {type(error).__name__}: {error}")
        return self._register(plugin, record)

    def _register(self, plugin: object, record: PluginRecord) -> PluginRecord:
        try:
            if (speaks := getattr(plugin, "segplug_api_version", API_VERSION)) != API_VERSION:
                reason = f"speaks plugin API version {speaks}; this segplug speaks {API_VERSION}"
                return self._keep(record, State.INCOMPATIBLE, reason)
            self._manager.register(plugin, record.name)
            record = replace(record, hooks=self._implemented(plugin, record.name))
            provided = list(self._collect(record))
        except (Exception, SystemExit) as error:
            if self._manager.has_plugin(record.name):
                self._manager.unregister(name=record.name)
            told = isinstance(error, (PluginShapeError, pluggy.PluginValidationError))
            reason = str(error) if told else f"{type(error).__name__}: {error}"
            return self._keep(replace(record, hooks=()), State.BROKEN, reason)
        self.provided += provided
        return self._keep(record, State.ACTIVE, "")

    def _keep(self, record: PluginRecord, state: State, reason: str) -> PluginRecord:
        self.records[record.name] = kept = replace(record, state=state, reason=reason)
        return kept

    def _implemented(self, plugin: object, name: str) -> tuple[str, ...]:
        """Names of the hooks that a plugin implements, all of them known and none wrapped around those of others."""
        callers = self._manager.get_hookcallers(plugin) or []
        for caller in callers:
            for each in (each for each in caller.get_hookimpls() if each.plugin_name == name):
                if each.wrapper or each.hookwrapper:
                    raise PluginShapeError(f"{caller.name} is a hook wrapper; segplug's hooks cannot be wrapped")
                if not (caller.has_spec() or each.optionalhook):
                    near = did_you_mean(caller.name, (n for n, hook in vars(self.hook).items() if hook.has_spec()))
                    raise PluginShapeError(f"unknown hook {caller.name!r} in plugin {name!r}.{near}")
        if not callers:
            raise PluginShapeError("implements no hook: is @hookimpl missing, or is the entry point's module wrong?")
        return tuple(sorted(caller.name for caller in callers))

    def _collect(self, record: PluginRecord) -> Iterator[Provided]:
        """Call the provider hooks of one plugin and check what they yield."""
        for kind in KINDS.values():
            found = getattr(self._manager.hook, kind.hook).get_hookimpls()
            for implementation in (each for each in found if each.plugin_name == record.name):
                seen: set[str] = set()
                for component in implementation.function() or ():
                    if not isinstance(component, Component):
                        raise PluginShapeError(f"{kind.hook} yielded {component!r}; expected segplug.Component")
                    provided = Provided(kind, component, record)
                    if provided.names & seen:
                        raise PluginShapeError(f"{kind.hook} yields {sorted(provided.names & seen)} more than once")
                    seen |= provided.names
                    yield provided


def installed_plugins(found: Iterable[Distribution] | None = None) -> list[PluginRecord]:
    """Plugins announced by the installed distributions, in a fixed order; nothing is imported."""
    records: dict[tuple[str, str], PluginRecord] = {}
    for distribution in distributions() if found is None else found:
        for point in distribution.entry_points:
            if point.group == ENTRY_POINT_GROUP:
                name = distribution.metadata["Name"] or "?"
                record = PluginRecord(point.name, point.value, name, distribution.version)
                records.setdefault((name, point.name), record)  # the first on the path is the one that is imported
    return [records[key] for key in sorted(records)]
