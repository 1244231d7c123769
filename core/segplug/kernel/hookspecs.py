"""Every hook of segplug.

Provider hooks take no argument and return components; they are called once, when a run starts. Choice hooks stop at
the first answer that is not None and are asked only where neither the user nor the plan named a component; built-in
answers come last. Event hooks report what happened: their results are ignored, and an event hook that raises is
reported and never stops the run; they are specified in `segplug.protocols.events`. No hook is called within the
per-iteration loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.kernel.component import Component, hookspec
from segplug.kernel.kinds import KINDS, Kind

if TYPE_CHECKING:
    from segplug.model import Plan


class Providers:
    """One provider hook for each row of the table of kinds."""


def _provider(kind: Kind) -> Callable[[], Iterable[Component[Any]]]:
    def provide() -> Iterable[Component[Any]]:  # type: ignore[empty-body]
        ...

    provide.__name__ = provide.__qualname__ = kind.hook
    provide.__annotations__ = {"return": f"Iterable[Component[{kind.protocol}]]"}
    provide.__doc__ = f"{kind.name.capitalize()}: {kind.summary}."
    return hookspec(provide)


for _kind in KINDS.values():
    setattr(Providers, _kind.hook, staticmethod(_provider(_kind)))


@hookspec(firstresult=True)
def segplug_choose_reader(path: Path) -> str | None:
    """Name the reader for this file, or None. Asked once per data set, with the first image of its first case."""


@hookspec(firstresult=True)
def segplug_choose_writer(path: Path) -> str | None:
    """Name the writer for a file of this name, or None. Asked when the reader in use has no writer of its name."""


@hookspec(firstresult=True)
def segplug_choose_normalizer(channel_name: str) -> str | None:
    """Name the normalizer for a channel of this name, or None. Asked by planners, once per channel."""


@hookspec(firstresult=True)
def segplug_choose_trainer(plan: Plan, configuration: str) -> str | None:
    """Name the trainer for a configuration, or None. Asked when neither plan nor user names one."""


@hookspec
def segplug_configured(options: Mapping[str, Any]) -> None:
    """The settings have options for this plugin: its table `[options.NAME]`. It is told before it is told of anything
    else. To raise is to refuse them: the program ends, and shows the message as wrong usage."""
