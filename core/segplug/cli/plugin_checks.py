"""`segplug plugins check`: what the components of a plugin have to do, tried on what is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segplug.cli.shell import Format, say, show
from segplug.errors import UsageError
from segplug.kernel import KINDS, Kernel, PluginRecord, Provided

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

    rows, failed = [], 0
    for record in _unusable(kernel, name):
        failed += 1
        rows.append(
            [
                "plugin",
                record.name,
                State.FAILED.value,
                "it can be imported, and its hooks are segplug's",
                record.reason,
            ]
        )
    components = list(_wanted(kernel, name, kind))
    if not components and not rows:
        without = [r.name for r in kernel.plugins if not r.builtin and name in (None, r.name)]
        if without:
            say(f"No {kind or 'component'} is in {', '.join(without)}: events and commands have no conformance suite")
        elif name is not None:
            raise UsageError(f"no plugin or component is called {name!r}; `segplug plugins list` shows what there is")
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


def _unusable(kernel: Kernel, name: str | None) -> Iterator[PluginRecord]:
    return (record for record in kernel.plugins if record.reason and name in (None, record.name))


def _wanted(kernel: Kernel, name: str | None, kind: str | None) -> Iterator[Provided]:
    for each in KINDS if kind is None else [kind]:
        for provided in kernel.registry.all(each):
            everything = name is None and not provided.plugin.builtin
            plugin = name in (provided.plugin.name, provided.qualified_name)
            if everything or plugin or (name is not None and provided.answers_to(name)):
                yield provided
