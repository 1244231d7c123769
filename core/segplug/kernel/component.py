"""What a plugin hands to the kernel: a named, lazily imported implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

import pluggy

T_co = TypeVar("T_co", covariant=True)

PROJECT = "segplug"
API_VERSION = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class Component(Generic[T_co]):
    """One implementation of one kind.

    Args:
        name: what users write in a plan or after ``--set``; unique within its kind.
        factory: the implementation, or where it is: ``"package.module:attribute"``. The string is imported on first
            use, so that listing plugins loads no heavy library.
        summary: one line for ``segplug plugins list``.
        aliases: further names it answers to, such as nnU-Net's own.
        replaces: True says that it may stand in for a built-in component of the same name.

    Raises:
        ValueError: a name is empty or has a colon, which parts plugin and component (``plugin:name``).
        TypeError: `aliases` is not a tuple.
    """

    name: str
    factory: Callable[..., Any] | str
    summary: str
    aliases: tuple[str, ...] = ()
    replaces: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.aliases, tuple):
            raise TypeError(f"aliases of component {self.name!r}: expected a tuple of names, found {self.aliases!r}")
        for name in (self.name, *self.aliases):
            if not name.strip() or ":" in name:
                raise ValueError(f"{name!r} is no component name: it must not be empty nor have a colon")

    def load(self) -> Callable[..., Any]:
        """Import (if need be) and return the implementation.

        Raises:
            ImportError: the module or one of its requirements is missing.
            AttributeError: the module has no such attribute.
            TypeError: the factory is neither callable nor ``"module:attribute"``.
        """
        found: Any = self.factory
        if isinstance(found, str):
            if ":" not in found:
                raise TypeError(f"factory {found!r} of component {self.name!r} is not of the form 'module:attribute'")
            found = locate(found)
        if not callable(found):
            raise TypeError(f"factory of component {self.name!r} is a {type(found).__name__}, which cannot be called")
        return found  # type: ignore[no-any-return]


def locate(place: str) -> Any:
    """Import what a text in code or in an entry point names: ``module`` or ``module:attribute``."""
    module, _, attributes = place.partition(":")
    found: Any = import_module(module)
    for attribute in filter(None, attributes.split(".")):
        found = getattr(found, attribute)
    return found
