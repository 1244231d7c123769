"""The kernel: plugins, registry and hooks behind one object that is passed to whoever needs it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from segplug.errors import PluginError, SegplugError, WrongReferenceError
from segplug.kernel.plugins import PluginHost, PluginRecord, State
from segplug.kernel.registry import Registry


class Kernel:
    """Loads the plugins once and answers for them.

    Args:
        pins: ``{"<kind>.<name>": "plugin:name"}``, the project's choices.
        block: names of plugins not to load.
        discover: False leaves installed plugins out (the built-ins alone), as tests do.
    """

    def __init__(
        self, *, pins: Mapping[str, str] | None = None, block: Iterable[str] = (), discover: bool = True
    ) -> None:
        self._host = PluginHost(block=block, discover=discover)
        self.registry = Registry(self._host, pins)

    @property
    def plugins(self) -> list[PluginRecord]:
        """Records of all plugins, also of those that could not be used."""
        return list(self._host.records.values())

    def register(self, plugin: object, name: str) -> PluginRecord:
        """Add a plugin object of this process.

        Raises:
            PluginError: the name is taken, or its hooks are not what the specification says.
        """
        if (known := self._host.records.get(name)) is not None:
            raise PluginError(f"{known} is registered already")
        record = self._host.register(plugin, name)
        if record.reason:
            raise PluginError(f"plugin {name!r} cannot be registered: {record.reason}")
        return record

    def choose(self, hook: str, **arguments: Any) -> str | None:
        """Ask a choice hook; the first answer counts, the built-ins' last.

        Raises:
            PluginError: a plugin failed to answer, or answered something else than a name.
        """
        for plugin, ask in self._calls(hook, arguments):
            try:
                answer = ask()
            except SegplugError:
                raise
            except Exception as error:
                raise PluginError(f"plugin {plugin!r} failed in {hook}: {type(error).__name__}: {error}") from error
            if answer is not None and not isinstance(answer, str):
                raise PluginError(f"plugin {plugin!r}: {hook} answered {answer!r}; expected a component's name or None")
            if answer is not None:
                return answer
        return None

    def emit(self, event: str, **arguments: Any) -> None:
        """Tell every plugin of an event. One that raises is reported and does not stop the others or the run."""
        for plugin, tell in self._calls(event, arguments):
            try:
                tell()
            except Exception as error:
                who = f"plugin {plugin!r} failed in {event}"
                warnings.warn(f"{who}: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2)

    def configure(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        """Give plugins their options, by the plugins' names. Plugins that cannot be used get none.

        Raises:
            WrongReferenceError: there is no such plugin, it takes no options, or it refuses these.
        """
        takers = [record.name for record in self.plugins if "segplug_configured" in record.hooks]
        for name, given in options.items():
            record = self._host.records.get(name)
            if record is None or (record.state is State.ACTIVE and name not in takers):
                what = "no such plugin is installed" if record is None else f"{record} takes no options"
                raise WrongReferenceError(f"{what}. Plugins with options: {', '.join(takers) or 'none'}")
            calls = self._calls("segplug_configured", {"options": given})
            for tell in (tell for plugin, tell in calls if plugin == name):
                try:
                    tell()
                except Exception as error:
                    raise WrongReferenceError(f"{record} refuses {dict(given)}: {error}") from error

    def _calls(self, hook: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
        """The implementations of a hook in pluggy's order (last registered first), each with its plugin's name."""
        caller = getattr(self._host.hook, hook)
        if set(arguments) != set(caller.spec.argnames):
            raise TypeError(f"{hook} takes {', '.join(caller.spec.argnames)}; given: {', '.join(arguments)}")
        for implementation in reversed(caller.get_hookimpls()):
            given = (arguments[name] for name in implementation.argnames)
            yield implementation.plugin_name, partial(implementation.function, *given)
