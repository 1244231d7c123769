"""Settings of frozen dataclasses, changed by name: `trainer.epochs=3`, or the recipe of a plan."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from segplug.errors import UsageError
from segplug.model import ComponentRef

T = TypeVar("T")


def apply_overrides(instance: T, assignments: Iterable[str], prefix: str = "trainer") -> T:
    """Apply `--set` assignments, of the form ``<prefix>.<field>[.<option>...]=<value>``, to a dataclass.

    A field of type `ComponentRef` takes a component's name; further parts set that component's options, whose values
    are JSON (a text that is none stays text). Giving another name drops the options of the former component. Of a field
    that is a mapping, further parts are a key, dots and all. The order of assignments does not matter, except that the
    last of two for the same thing counts.

    Raises:
        UsageError: an assignment has another form, names an unknown field, or its value is not of the field's type.
    """
    given: dict[str, Any] = {}
    options: list[tuple[str, list[str], Any]] = []
    for assignment in assignments:
        path, value = split_assignment(assignment, prefix)
        if len(path) == 1:
            given[path[0]] = value
        else:
            options.append((path[0], path[1:], finite(literal(value), assignment)))
    changed = configure(instance, given, prefix)
    for field, path, value in options:
        before = _field_value(changed, field, prefix)
        if isinstance(before, Mapping):
            changed = configure(changed, {field: {**before, ".".join(path): value}}, prefix)
        elif isinstance(before, ComponentRef):
            ref = ComponentRef(before.name, _with_option(before.options, path, value))
            changed = _replace(changed, {field: ref}, prefix)
        else:
            raise UsageError(f"{prefix}.{field}.{'.'.join(path)}: {prefix}.{field} is no component and has no options")
    return changed


def configure(instance: T, settings: Mapping[str, Any], prefix: str) -> T:
    """Replace fields of a frozen dataclass by settings from a plan's recipe or the command line.

    Args:
        settings: field -> value; JSON values, or texts as a command line has them. A `ComponentRef` may be given as
            such, by its name, or as ``{"name": ..., "options": {...}}``.
        prefix: what the settings are called in messages.

    Raises:
        UsageError: see `apply_overrides`.
    """
    hints = _hints(instance, prefix) if settings else {}
    changes = {}
    for field, value in settings.items():
        before = _field_value(instance, field, prefix)
        changes[field] = _coerce(value, hints[field], before, f"{prefix}.{field}")
    return _replace(instance, changes, prefix) if changes else instance


def as_settings(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON values, such that `configure` puts them back."""
    return {field.name: _plain(getattr(instance, field.name)) for field in fields(instance)}


def split_assignment(assignment: str, prefix: str) -> tuple[list[str], str]:
    """``prefix.a.b=value`` -> (["a", "b"], "value").

    Raises:
        UsageError: it has another form.
    """
    key, equals, value = assignment.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or parts[0] != prefix or len(parts) < 2 or not all(parts):
        raise UsageError(f"--set {assignment}: expected {prefix}.<field>=<value>")
    return parts[1:], value.strip()


def literal(text: str) -> Any:
    """A command line's text as a JSON value if it is one, or none, true or false in any case; else as it is."""
    words = {"true": True, "false": False, "none": None}
    if text.casefold() in words:
        return words[text.casefold()]
    for parse in (json.loads, float):  # `.5` and `1_000` are numbers to everybody but JSON
        try:
            return parse(text)
        except ValueError:
            continue
    return text


def _hints(instance: Any, prefix: str) -> dict[str, Any]:
    if not is_dataclass(instance) or isinstance(instance, type):
        raise UsageError(f"{prefix}: a {type(instance).__name__} is no dataclass and has no settings")
    return get_type_hints(type(instance))


def _field_value(instance: Any, field: str, prefix: str) -> Any:
    names = [f.name for f in fields(instance)] if is_dataclass(instance) else []
    if field not in names:
        near = get_close_matches(field, names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"no setting {prefix}.{field}.{hint} There are: {', '.join(names) or 'none'}")
    return getattr(instance, field)


def _replace(instance: T, changes: Mapping[str, Any], prefix: str) -> T:
    try:
        return replace(instance, **changes)  # type: ignore[type-var]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{prefix}: {error}") from error


def _with_option(options: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    inner = options.get(path[0])
    if len(path) > 1:
        value = _with_option(inner if isinstance(inner, Mapping) else {}, path[1:], value)
    return {**options, path[0]: value}


def _coerce(value: Any, hint: Any, before: Any, where: str) -> Any:
    if ComponentRef in (hint, *get_args(hint)):
        if type(None) in get_args(hint) and (value is None or literal(str(value)) is None):
            return None
        return _component(value, before, where)
    if isinstance(value, str) and hint is not str:
        value = value if get_origin(hint) is Literal and value in get_args(hint) else literal(value)
    fits, converted = _convert(value, hint)
    if not fits:
        raise UsageError(f"{where}: {value!r} is no {_describe(hint)}")
    return finite(converted, where)


def fits_type(value: Any, hint: Any) -> str | None:
    """What was expected instead, where a value is not of a plain type (or a union of such); None where it is.

    Of other types nothing is said.
    """
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    plain = all(get_origin(m) is Literal or m in (bool, int, float, str, type(None)) for m in members)
    return _describe(hint) if plain and not _convert(value, hint)[0] else None


def finite(value: Any, where: str) -> Any:
    """The value; no setting is a NaN or infinite.

    Raises:
        UsageError: it is one, or holds one.
    """
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for part in inner:
        finite(part, where)
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{where}: {value} is no finite number")
    return value


def _component(value: Any, before: Any, where: str) -> ComponentRef:
    if isinstance(value, ComponentRef):
        return value
    if isinstance(value, str) and value:
        return before if isinstance(before, ComponentRef) and before.name == value else ComponentRef(value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str) and set(value) <= {"name", "options"}:
        return ComponentRef(value["name"], dict(value.get("options", {})))
    raise UsageError(f"{where}: {value!r} is no component; expected a name, or {{'name': ..., 'options': {{...}}}}")


def _convert(value: Any, hint: Any) -> tuple[bool, Any]:  # noqa: PLR0911 - one line per type
    """Whether a value is of a type, and the value as that type; numbers are widened, never cut."""
    origin = get_origin(hint)
    if hint is Any:
        return True, value
    if origin in (Union, types.UnionType):
        tries = [_convert(value, member) for member in get_args(hint)]
        return next((found for found in tries if found[0]), (False, value))
    if origin is Literal:
        return value in get_args(hint), value
    if hint is type(None):
        return value is None, None
    if hint is bool:
        return isinstance(value, bool), value
    if hint is int:
        whole = isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer()
        return whole, int(value) if whole else value
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number, float(value) if number else value
    if origin is tuple:
        return _convert_tuple(value, get_args(hint))
    return isinstance(value, origin or hint), value


def _convert_tuple(value: Any, members: tuple[Any, ...]) -> tuple[bool, Any]:
    if isinstance(value, str) and members[:1] == (str,):
        value = [part.strip() for part in value.split(",") if part.strip()]  # a command line's list of names
    if not isinstance(value, (list, tuple)):
        return False, value
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    items = [_convert(item, member) for item, member in zip(value, members, strict=False)]
    return len(members) == len(value) and all(fits for fits, _ in items), tuple(item for _, item in items)


def _describe(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe(member) for member in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    plain = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "none"}
    return plain.get(hint, getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint))


def _plain(value: Any) -> Any:
    if isinstance(value, ComponentRef):
        return {"name": value.name, "options": dict(value.options)}
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
