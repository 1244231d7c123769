"""Which component stands behind a name, decided by explicit rules and never by load order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

from segplug.errors import PluginError, UsageError
from segplug.kernel.kinds import KINDS, Kind, Style
from segplug.kernel.plugins import PluginHost, Provided, State
from segplug.model.component_ref import ComponentRef


class Registry:
    """Resolves names to components.

    Precedence: a qualified ``plugin:name``; a pin of the project (``[pins]`` in ``segplug.toml``); the one installed
    plugin whose component says ``replaces=True``; the built-in component.
    """

    def __init__(self, host: PluginHost, pins: Mapping[str, str] | None = None) -> None:
        self._host = host
        self._pins = dict(pins or {})
        self._used: dict[tuple[str, str], Provided] = {}
        for pin in self._pins:
            kind, _, name = pin.partition(".")
            if kind not in KINDS or not name:
                raise UsageError(f"pin {pin!r}: expected '<kind>.<name>', with a kind of: {', '.join(KINDS)}")

    def all(self, kind: str) -> list[Provided]:
        """Every component of a kind, built-ins first."""
        return [p for p in self._host.provided if p.kind is _kind(kind)]

    def names(self, kind: str) -> list[str]:
        """Names (no aliases) of a kind's components."""
        return sorted({p.component.name for p in self.all(kind)})

    def resolve(self, kind: str, name: str) -> Provided:
        """Find the component of a kind that a name stands for.

        Raises:
            UsageError: the kind does not exist.
            PluginError: the name is unknown, shadowed without ``replaces=True``, or claimed by several plugins.
        """
        found = self._find(_kind(kind), name)
        self._used[kind, found.component.name] = found
        return found

    def build(self, kind: str, ref: ComponentRef | str, **offered: Any) -> Any:
        """Return the component for a reference, ready to be used.

        A component of function style is returned with its options bound. One of object style is made by its factory
        from the options and from those of `offered` that its signature names.

        Raises:
            PluginError: it cannot be found or imported, or does not take the options.
        """
        ref = ComponentRef(ref) if isinstance(ref, str) else ref
        provided = self.resolve(kind, ref.name)
        factory = self.load(provided)
        options = dict(ref.options)
        if provided.kind.style is Style.FUNCTION:
            _check_options(provided, factory, options, partial_call=True)
            return partial(factory, **options) if options else factory
        accepted = _parameters(factory)
        given = {name: value for name, value in offered.items() if accepted is None or name in accepted}
        _check_options(provided, factory, {**given, **options}, partial_call=False)
        return factory(**{**given, **options})

    def load(self, provided: Provided) -> Callable[..., Any]:
        """Import the implementation behind a component, naming the plugin if that fails."""
        try:
            return provided.component.load()
        except Exception as error:
            plugin = provided.plugin
            raise PluginError(
                f"{provided.kind.name}: {provided.component.name!r} of plugin {plugin.name!r} ({plugin.distribution} "
                f"{plugin.version}) cannot be loaded: {type(error).__name__}: {error}"
            ) from error

    def replacements(self) -> list[tuple[Provided, Provided]]:
        """Pairs (built-in, what stands in for it) now in force."""
        pairs = []
        for builtin in self._host.provided:
            if builtin.plugin.builtin:
                try:
                    inforce = self._find(builtin.kind, builtin.component.name)
                except PluginError:
                    continue
                if inforce is not builtin:
                    pairs.append((builtin, inforce))
        return pairs

    def conflicts(self) -> list[str]:
        """What would be an error if it were asked for, one text each."""
        problems = []
        for kind in KINDS.values():
            for name in self.names(kind.name):
                try:
                    self._find(kind, name)
                except PluginError as error:
                    problems.append(str(error))
        return problems

    def used(self) -> list[Provided]:
        """Components resolved so far, for the provenance of a run."""
        return [self._used[key] for key in sorted(self._used)]

    def _find(self, kind: Kind, name: str) -> Provided:
        candidates = self.all(kind.name)
        plugin, colon, rest = name.partition(":")
        if colon:
            matches = [p for p in candidates if p.plugin.name == plugin and p.answers_to(rest)]
            if not matches:
                raise self._unknown(kind, name, candidates)
            return matches[0]
        matches = [p for p in candidates if p.answers_to(name)]
        if not matches:
            raise self._unknown(kind, name, candidates)
        # an alias leads to a component's own name first, so that replacing that name replaces the alias too
        canonical = next((p.component.name for p in matches if p.plugin.builtin), None)
        if canonical is not None:
            matches += [p for p in candidates if p.component.name == canonical and p not in matches]
        for key in (name, canonical):
            pin = self._pins.get(f"{kind.name}.{key}")
            if pin is not None:
                if ":" not in pin:
                    raise UsageError(f"pin {kind.name}.{key} = {pin!r}: expected 'plugin:name'")
                return self._find(kind, pin)
        return _choose(kind, name, matches)

    def _unknown(self, kind: Kind, name: str, candidates: Iterable[Provided]) -> PluginError:
        known = {n for p in candidates for n in (p.component.name, *p.component.aliases, p.qualified_name)}
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        text = f"no component {name!r} among the {kind.name}."
        text += f" Did you mean {near[0]!r}?" if near else ""
        text += f" There are: {', '.join(self.names(kind.name)) or 'none'}."
        for record in self._host.records.values():
            if record.state is not State.ACTIVE:
                text += f" Plugin {record.name!r} is {record.state.value}: {record.reason}."
        return PluginError(text)


def _choose(kind: Kind, name: str, matches: list[Provided]) -> Provided:
    builtin = [p for p in matches if p.plugin.builtin]
    outside = [p for p in matches if not p.plugin.builtin]
    if not outside:
        return builtin[0]
    if builtin:
        shadowing = [p for p in outside if not p.component.replaces]
        if shadowing:
            raise PluginError(
                f"{_who(shadowing[0])} has a component {shadowing[0].component.name!r} among the {kind.name}, the name of "
                f"a built-in one, without replaces=True. Name it as {shadowing[0].qualified_name!r}, pin one in "
                f"segplug.toml ({_pin(kind, name, shadowing[0])}), or ask its author to set replaces=True"
            )
    if len(outside) > 1:
        raise PluginError(
            f"{' and '.join(map(_who, outside))} both provide {name!r} among the {kind.name}. Choose one in segplug.toml: "
            + " or ".join(_pin(kind, name, p) for p in outside)
        )
    return outside[0]


def _who(provided: Provided) -> str:
    plugin = provided.plugin
    return f"plugin {plugin.name!r} ({plugin.distribution} {plugin.version})"


def _pin(kind: Kind, name: str, provided: Provided) -> str:
    return f'[pins] "{kind.name}.{name}" = "{provided.qualified_name}"'


def _kind(name: str) -> Kind:
    if name not in KINDS:
        near = get_close_matches(name, KINDS, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"no kind of component {name!r}.{hint} There are: {', '.join(KINDS)}")
    return KINDS[name]


def _parameters(function: Callable[..., Any]) -> set[str] | None:
    """Names that may be given by keyword; None where the signature cannot be read."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _check_options(provided: Provided, factory: Callable[..., Any], options: dict[str, Any], partial_call: bool) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return
    try:
        (signature.bind_partial if partial_call else signature.bind)(**options)
    except TypeError as error:
        takes = ", ".join(sorted(_parameters(factory) or ())) or "no options"
        raise PluginError(
            f"{provided.kind.name}: {provided.qualified_name} cannot be made from the options {sorted(options)}: {error}. "
            f"It takes: {takes}"
        ) from error
