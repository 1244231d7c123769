"""Components as a command line names them: `NAME` or `NAME,option=VALUE,...`, with JSON values."""

from __future__ import annotations

import inspect
import json
from typing import Any, get_type_hints

from segplug.errors import UsageError, WrongReferenceError
from segplug.kernel import Registry
from segplug.model import ComponentRef
from segplug.runtime.overrides import finite, fits_type, literal
from segplug.runtime.user_choice import named_by_user


def component_of_user(registry: Registry, kind: str, given: str | ComponentRef, option: str) -> ComponentRef:
    """The component that the user named, with its options; its name and theirs are known to exist.

    Args:
        given: a reference, or its text; see `parse_component`.
        option: where it was given, as `--metric`.

    Raises:
        UsageError: the text has another form, there is no such component, or it does not take an option or its value.
        PluginError: the component cannot be loaded.
    """
    ref = parse_component(given, option) if isinstance(given, str) else given
    with named_by_user(option):
        registry.check(kind, ref)
        check_types(registry, kind, ref)
    return ref


def parse_component(text: str, option: str) -> ComponentRef:
    """``NAME,option=VALUE,...`` as a reference. Values are JSON; one that is none is text, up to the next comma.

    Raises:
        UsageError: it has another form, or a value is NaN or infinite.
    """
    name, _, rest = text.partition(",")
    options: dict[str, Any] = {}
    while rest.strip():
        key, equals, rest = rest.partition("=")
        if not equals or not key.strip().isidentifier():
            raise UsageError(f"{option} {text!r}: expected NAME,option=VALUE,..., found {key.strip()!r}")
        value, rest = _first_value(rest)
        options[key.strip()] = finite(value, f"{option} {text!r}")
    return ComponentRef(name.strip(), options)


def check_types(registry: Registry, kind: str, ref: ComponentRef) -> None:
    """Options that the component's own signature says are numbers, texts, true or false, have to be that.

    Raises:
        WrongReferenceError: one is something else.
    """
    factory = registry.resolve(kind, ref.name).component.load()
    try:
        hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except Exception:  # a stranger's annotations can be anything
        return
    for option, value in ref.options.items():
        expected = fits_type(value, hints[option]) if option in hints else None
        if expected is not None:
            raise WrongReferenceError(f"{ref.name}: option {option} is {value!r}, which is no {expected}")


def _first_value(text: str) -> tuple[Any, str]:
    """The first value of `VALUE,option=VALUE,...`, and what follows its comma."""
    try:
        value, end = json.JSONDecoder().raw_decode(text.lstrip())
        rest = text.lstrip()[end:].lstrip()
    except ValueError:
        pass
    else:
        if rest[:1] in ("", ","):
            return value, rest[1:]
    first, _, rest = text.partition(",")
    return literal(first.strip()), rest
