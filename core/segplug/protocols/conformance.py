"""Does a component have the shape of its protocol? Driven by the protocol alone; no kind has a rule of its own."""

from __future__ import annotations

import inspect
from typing import Any


def own_parameters(signature: inspect.Signature, protocol: type) -> set[str]:
    """Names of what a function takes beyond the arguments with which its protocol calls it: its options."""
    wanted = list(inspect.signature(vars(protocol)["__call__"]).parameters.values())[1:]
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    passed = len([p for p in wanted if p.kind in by_place])
    takes = list(signature.parameters.values())
    called = {p.name for p in [p for p in takes if p.kind in by_place][:passed]} | {p.name for p in wanted}
    return {p.name for p in takes if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - called


def mismatch(value: Any, protocol: type) -> str:
    """What keeps a value from being used as `protocol` says, or an empty text.

    Checked are the protocol's public methods, or `__call__`: that they exist and can be called with the protocol's
    arguments, positional ones by position and the others by name. What they do with them is for the kind's own tests.
    """
    for name, expected in vars(protocol).items():
        if not inspect.isfunction(expected) or (name.startswith("_") and name != "__call__"):
            continue
        found = value if name == "__call__" else getattr(value, name, None)
        if not callable(found):
            return f"a {type(value).__name__} cannot be called" if name == "__call__" else f"it has no method {name!r}"
        wanted = list(inspect.signature(expected).parameters.values())[1:]
        positional = [p.name for p in wanted if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        keywords = {p.name: p.name for p in wanted if p.kind is p.KEYWORD_ONLY}
        try:
            signature = inspect.signature(found)
        except (TypeError, ValueError):  # C functions do not tell theirs
            continue
        try:
            signature.bind_partial(*positional, **keywords)
        except TypeError as error:
            call = ", ".join([*positional, *(f"{k}=..." for k in keywords)])
            return f"{'it' if name == '__call__' else name} cannot be called with ({call}): {error}"
    return ""
