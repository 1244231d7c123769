"""Which component stands behind a name, decided by explicit rules and never by load order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from segplug.errors import PluginError, UsageError, WrongReferenceError, did_you_mean
from segplug.kernel.kinds import KINDS, Kind, Style
from segplug.kernel.plugins import PluginHost, PluginRecord, Provided
from segplug.model.component_ref import ComponentRef
from segplug.protocols.conformance import mismatch, own_parameters


class Registry:
    """Resolves names to components.

    Precedence: a qualified ``plugin:name``; a pin of the project (``[pins]`` in ``segplug.toml``); the one installed
    plugin whose component says ``replaces=True``; the built-in component. All names of a built-in component stand for
    it: what replaces or pins one of them does so for all.
    """

    def __init__(self, host: PluginHost, pins: Mapping[str, str] | None = None) -> None:
        self._host = host
        self._pins = dict(pins or {})
        self._used: dict[tuple[str, str], Provided] = {}
        for pin, target in self._pins.items():
            kind, _, name = pin.partition(".")
            if kind not in KINDS or not name:
                raise UsageError(f"pin {pin!r}: expected '<kind>.<name>', with a kind of: {', '.join(KINDS)}")
            if ":" not in target:
                raise UsageError(f"pin {pin} = {target!r}: expected 'plugin:name'")

    def all(self, kind: str) -> list[Provided]:
        """Every component of a kind, built-ins first."""
        wanted = _kind(kind)
        return [p for p in self._host.provided if p.kind is wanted]

    def names(self, kind: str) -> list[str]:
        """Names (no aliases) of a kind's components."""
        return sorted({p.component.name for p in self.all(kind)})

    def find(self, kind: str, name: str) -> Provided:
        """Find the component of a kind that a name stands for.

        Raises:
            UsageError: the kind does not exist.
            PluginError: the name is unknown, shadowed without ``replaces=True``, or claimed by several plugins.
        """
        return replace(self._find(_kind(kind), name), asked=name)

    def resolve(self, kind: str, name: str) -> Provided:
        """The same as `find`, and remember it as used, for the provenance of a run."""
        self._used[kind, name] = found = self.find(kind, name)
        return found

    def used(self) -> list[Provided]:
        """Components resolved so far, sorted by kind and the name that was asked for."""
        return [self._used[key] for key in sorted(self._used)]

    def build(self, kind: str, ref: ComponentRef | str, **offered: Any) -> Any:
        """Return the component for a reference, ready to be used.

        A component of function style is returned with its options bound. One of object style is made by its factory
        from the options and from those of `offered` that its signature names.

        Raises:
            PluginError: it cannot be found or imported, does not take the options, or is not what its protocol says.
        """
        ref = ComponentRef(ref) if isinstance(ref, str) else ref
        provided = self.resolve(kind, ref.name)
        factory, options = self.load(provided), dict(ref.options)
        is_object = provided.kind.style is Style.OBJECT
        signature = _signature(factory)
        takes = _takes(signature)
        if is_object:
            offers = {name: value for name, value in offered.items() if name in takes or signature is None}
            options = {**offers, **options}
        try:
            if signature is not None:
                (signature.bind if is_object else signature.bind_partial)(**options)
            built = factory(**options) if is_object else partial(factory, **options) if options else factory
        except (TypeError, ValueError) as error:
            raise _unfit(provided, ref, signature, error) from error
        problem = mismatch(built, provided.kind.load_protocol())
        if problem:
            what = f"{kind}: {provided.component.name!r} of {provided.plugin}"
            raise PluginError(f"{what} is no {provided.kind.protocol}: {problem}")
        return built

    def check(self, kind: str, ref: ComponentRef) -> None:
        """Find out, before anything is made, what is wrong with a reference's name or the names of its options.

        Raises:
            PluginError: as `build`.
        """
        provided = self.find(kind, ref.name)
        signature = _signature(self.load(provided))
        try:
            if signature is not None:
                signature.bind_partial(**ref.options)
        except TypeError as error:
            raise _unfit(provided, ref, signature, error) from error

    def load(self, provided: Provided) -> Callable[..., Any]:
        """Import the implementation behind a component, naming the plugin if that fails."""
        try:
            return provided.component.load()
        except (Exception, SystemExit) as error:
            what = f"{provided.kind.name}: {provided.component.name!r} of {provided.plugin} cannot be loaded"
            raise PluginError(f"{what}: {type(error).__name__}: {error}") from error

    def plugin(self, name: str, distribution: str) -> PluginRecord | None:
        """The record of a distribution's plugin, usable or not; None if it is not installed."""
        called = (record for record in self._host.records.values() if record.is_called(name))
        return next((record for record in called if record.distribution == distribution), None)

    def in_force(self, kind: str, name: str) -> Provided | str:
        """What a name stands for now, or why it stands for nothing."""
        try:
            return self._find(_kind(kind), name)
        except PluginError as error:
            return str(error)

    def replacements(self) -> list[tuple[Provided, Provided]]:
        """Pairs (built-in, what stands in for it) now in force."""
        builtins = [p for p in self._host.provided if p.plugin.builtin]
        pairs = [(p, self.in_force(p.kind.name, p.component.name)) for p in builtins]
        return [(old, new) for old, new in pairs if isinstance(new, Provided) and new != old]

    def problems(self) -> list[str]:
        """What would be an error if it were asked for, and settings that have no effect; one text each."""
        names = [(p.kind.name, p.component.name) for p in self._host.provided]
        names += [(kind, name) for kind, _, name in (pin.partition(".") for pin in self._pins)]
        found = [text for text in (self.in_force(*pair) for pair in names) if isinstance(text, str)]
        there = {f"{p.kind.name}.{name}" for p in self._host.provided for name in p.names}
        found += [f"[pins] {pin}: there is no such component" for pin in self._pins if pin not in there]
        found += [f"[plugins] block: no plugin {name!r} is installed" for name in self._host.blocked_in_vain]
        return list(dict.fromkeys(found))

    def _find(self, kind: Kind, name: str, pin: str = "") -> Provided:
        candidates = self.all(kind.name)
        plugin, colon, rest = name.partition(":")
        if colon:
            matches = [p for p in candidates if p.plugin.name == plugin and p.answers_to(rest)]
            if not matches:
                raise self._unknown(kind, name, candidates, pin)
            return matches[0]
        builtin = next((p for p in candidates if p.plugin.builtin and p.answers_to(name)), None)
        meant = {name} if builtin is None else builtin.names
        for key in (f"{kind.name}.{n}" for n in (name, *sorted(meant - {name}))):
            if key in self._pins:
                return self._find(kind, self._pins[key], pin=key)
        outside = [p for p in candidates if not p.plugin.builtin and p.names & meant]
        if builtin is not None:
            for shadow in (p for p in outside if not p.component.replaces):
                raise PluginError(
                    f"{shadow.plugin} has a component {shadow.component.name!r} among the {kind.name}, the name of a "
                    f"built-in one, without replaces=True. Ask for {shadow.qualified_name!r} or "
                    f"{builtin.qualified_name!r}, pin one in segplug.toml ({_pin_line(name, shadow)}), or ask its "
                    "author to set replaces=True"
                )
        if len(outside) > 1:
            raise PluginError(
                f"{' and '.join(str(p.plugin) for p in outside)} both provide {name!r} among the {kind.name}. "
                f"Choose one in segplug.toml: {' or '.join(_pin_line(name, p) for p in outside)}"
            )
        found = outside[0] if outside else builtin
        if found is None:
            raise self._unknown(kind, name, candidates)
        return found

    def _unknown(self, kind: Kind, name: str, candidates: Iterable[Provided], pin: str = "") -> PluginError:
        known = {n for p in candidates for n in (*p.names, p.qualified_name)}
        text = f"no component {name!r} among the {kind.name}" + (f", to which {pin} is pinned." if pin else ".")
        text += f"{did_you_mean(name, known)} There are: {', '.join(self.names(kind.name)) or 'none'}."
        unusable = [record for record in self._host.records.values() if record.trouble]
        owners = [record for record in unusable if ":" in name and record.is_called(name.partition(":")[0])]
        text += "".join(f" {record.trouble}." for record in owners)
        if unusable and not owners:  # their reasons may be long, and seldom are why this name is unknown
            text += f" Plugins that cannot be used: {len(unusable)}; see `segplug plugins list`."
        return WrongReferenceError(text, (kind.name, name))


def _pin_line(name: str, provided: Provided) -> str:
    return f'[pins] "{provided.kind.name}.{name}" = "{provided.qualified_name}"'


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise UsageError(f"no kind of component {name!r}.{did_you_mean(name, KINDS)} There are: {', '.join(KINDS)}")
    return KINDS[name]


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _takes(signature: inspect.Signature | None) -> set[str]:
    return {p.name for p in signature.parameters.values() if p.kind in _BY_NAME} if signature else set()


def _unfit(provided: Provided, ref: ComponentRef, takes: inspect.Signature | None, error: Exception) -> PluginError:
    function = takes if provided.kind.style is Style.FUNCTION else None
    own = own_parameters(function, provided.kind.load_protocol()) if function else _takes(takes)
    what = f"{provided.kind.name}: {provided.qualified_name} cannot be made from the options {dict(ref.options)}"
    made = ". It is called with options alone and returns what is used" if "missing a required" in str(error) else ""
    return WrongReferenceError(f"{what}: {error}. It takes: {', '.join(sorted(own)) or 'no options'}{made}")


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # C functions do not tell theirs
        return None
