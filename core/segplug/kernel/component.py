"""What a plugin hands to the kernel: a named, lazily imported implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

import pluggy

T = TypeVar("T", covariant=True)

PROJECT = "segplug"
API_VERSION = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class Component(Generic[T]):
    """One implementation of one kind.

    Args:
        name: what users write in a plan or after ``--set``; unique within its kind.
        factory: the implementation, or where it is: ``"package.module:attribute"``. The string is imported on first
            use, so that listing plugins loads no heavy library.
        summary: one line for ``segplug plugins list``.
        aliases: further names it answers to, such as nnU-Net's own.
        replaces: True says that it may stand in for a built-in component of the same name.
    """

    name: str
    factory: Callable[..., Any] | str
    summary: str
    aliases: tuple[str, ...] = ()
    replaces: bool = False

    def load(self) -> Callable[..., Any]:
        """Import (if need be) and return the implementation.

        Raises:
            ImportError: the module or one of its requirements is missing.
            AttributeError: the module has no such attribute.
            TypeError: the factory is neither callable nor ``"module:attribute"``.
        """
        found: Any = self.factory
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            if not attribute:
                raise TypeError(f"factory {found!r} of component {self.name!r} is not of the form 'module:attribute'")
            found = import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        if not callable(found):
            raise TypeError(f"factory of component {self.name!r} is a {type(found).__name__}, which cannot be called")
        return found  # type: ignore[no-any-return]
