"""`segplug plugins check`: what the components of a plugin have to do, tried on what is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segplug.cli.plugins import nothing_called, unusable_plugins
from segplug.cli.shell import Format, say, show
from segplug.kernel import KINDS, Kernel, Provided
from segplug.kernel import State as PluginState

COLUMNS = ("kind", "component", "state", "what has to hold", "found")


def check_plugins(
    kernel: Kernel, name: str | None, kind: str | None, output: Format, *, ending: str, patch_size: Sequence[int]
) -> int:
    """Run the conformance suites and show what they found; returns how many checks failed.

    Args:
        name: of a plugin or a component; None for all that others installed.
        kind: only components of this kind.
        ending, patch_size: as of `segplug.testing.conformance`.

    Raises:
        UsageError: nothing has that name.
    """
    from segplug.testing.conformance import State, conformance

    components = list(_wanted(kernel, name, kind))
    usable = [record for record in kernel.plugins if record.state is PluginState.ACTIVE]
    meant = name is not None and not components and not any(record.is_called(name) for record in usable)
    rows, failed = [], 0
    for record in kernel.plugins if name is None else unusable_plugins(kernel, name):
        if record in usable:
            continue
        # who blocks a plugin knows that it is not there, unless it is asked for
        on_purpose = record.state is PluginState.BLOCKED and not meant
        state = State.SKIPPED if on_purpose else State.FAILED
        failed += not on_purpose
        rows.append(
            ["plugin", record.name, state.value, "it can be imported, and its hooks are segplug's", record.reason]
        )
    if not components and not rows:
        without = [r.name for r in kernel.plugins if not r.builtin and name in (None, r.name)]
        if without:
            say(f"No {kind or 'component'} is in {', '.join(without)}: events and commands have no conformance suite")
        elif name is not None:
            raise nothing_called(kernel, name)
        else:
            say("No plugin of others is installed here. `segplug plugins check builtin` checks the built-in ones")
    for provided in components:
        say(f"checking {provided.qualified_name} among the {provided.kind.name}")
        what = provided.kind.name, provided.qualified_name
        for bound in conformance(*what, kernel=kernel, ending=ending, patch_size=patch_size):
            finding = bound.finding()
            failed += finding.state is State.FAILED
            rows.append([*what, finding.state.value, finding.statement, finding.explanation])
    if rows:
        show(COLUMNS, rows, output)
    say(f"{len(rows)} checks, {failed} failed" if rows else "nothing was checked")
    return failed


def _wanted(kernel: Kernel, name: str | None, kind: str | None) -> Iterator[Provided]:
    for each in KINDS if kind is None else [kind]:
        for provided in kernel.registry.all(each):
            everything = name is None and not provided.plugin.builtin
            plugin = name in (provided.plugin.name, provided.qualified_name)
            if everything or plugin or (name is not None and provided.answers_to(name)):
                yield provided
