"""`segplug plugins`: what is installed, what is in force, and why something is not."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from segplug.cli.main import COMMANDS
from segplug.cli.plugin_commands import blocking, command_points
from segplug.cli.shell import Format, FormatOption, new_app, say, settings_of, show
from segplug.errors import UsageError
from segplug.kernel import KINDS, Kernel, PluginRecord, Provided, State

app = new_app("What is installed, what is in force, and why something is not.", group=True)

KindOption = Annotated[str | None, typer.Option("--kind", help=f"Only this kind: {', '.join(KINDS)}.")]

BUILTIN_DISTRIBUTION = "segplug"

COLUMNS = ("kind", "name", "qualified_name", "distribution", "version", "state", "summary")


@app.command("list")
def list_(ctx: typer.Context, kind: KindOption = None, output: FormatOption = Format.TABLE) -> None:
    """List every component, plugin and command, and which is in force.

    Components stand by kind with the plugin behind each, then what others installed. Plugins that cannot be used are
    listed with every kind: theirs are not known.
    """
    kernel = _kernel(ctx)
    rows = [_row(kernel, p) for name in (KINDS if kind is None else [kind]) for p in kernel.registry.all(name)]
    others = [record for record in kernel.plugins if not record.builtin]
    rows += [_plugin_row(record) for record in others if kind is None or record.state is not State.ACTIVE]
    if kind is None:
        rows += _command_rows(settings_of(ctx).block)
    if output is Format.TABLE and sys.stdout.isatty():
        show(("kind", "name", "what it is"), [_short(row) for row in rows])
    else:
        show(COLUMNS, rows, output)
    for problem in kernel.registry.problems():
        say(f"problem: {problem}")


@app.command("show")
def show_(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Plugin, its command, or component by name, alias or plugin:name.")
    ],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show a plugin, a plugin's command, or what answers to a name."""
    kernel = _kernel(ctx)
    rows: list[list[str]] = []
    unusable = unusable_plugins(kernel, name)
    for record in kernel.plugins:
        if record.name == name or record in unusable:
            rows.append(["plugin", f"{record.name} ({record.distribution} {record.version}), {record.module}"])
            rows.append(["state", f"{record.state.value}: {record.reason}" if record.reason else record.state.value])
            rows += [["hook", hook] for hook in record.hooks]
    for kind in KINDS.values():
        for provided in kernel.registry.all(kind.name):
            component = provided.component
            if name in (provided.plugin.name, provided.qualified_name) or provided.answers_to(name):
                rows.append(["component", f"{provided.qualified_name} among the {kind.name}: {component.summary}"])
                rows += [["  alias", alias] for alias in component.aliases]
                rows.append(["  implementation", str(component.factory)])
                rows.append(["  protocol", f"segplug.protocols.{kind.protocol} ({kind.style.value} style)"])
                rows.append(["  state", _standing(kernel, provided)])
    for _, command, _, distribution, version, state, value in _command_rows(settings_of(ctx).block):
        if name == command:
            rows.append(["command", f"{command} ({distribution} {version}), {value}"])
            rows.append(["  state", state])
    if not rows:
        raise nothing_called(kernel, name)
    show(["what", "value"], rows, output)


@app.command("check")
def check_(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Plugin or component; all of others' if left out.")
    ] = None,
    kind: KindOption = None,
    ending: Annotated[str, typer.Option("--ending", help="Of the files that readers and writers are for (.npy).")] = "",
    patch_size: Annotated[
        str, typer.Option("--patch-size", help="That architectures are built for, two or three numbers.")
    ] = "32,32,32",
    output: FormatOption = Format.TABLE,
) -> None:
    """Try whether installed components do what their kind has to do, and explain what does not.

    Shapes, types, gradients, repeatability, round trips, error messages: the conformance suites that
    segplug.testing offers to plugins' own tests. Components that need options are checked with their defaults.
    A plugin that cannot be used fails; one that the settings block is skipped, unless it is asked for by name.
    Exits with 1 if a check fails.
    """
    from segplug.cli.plugin_checks import check_plugins

    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*){1,2}", patch_size):
        raise UsageError(f"--patch-size {patch_size}: expected two or three numbers, such as 64,64")
    if ending and not ending.startswith("."):
        raise UsageError(f"--ending {ending}: expected an ending with its dot, such as .npy")
    patch = [int(size) for size in patch_size.split(",")]
    if check_plugins(_kernel(ctx), name, kind, output, ending=ending, patch_size=patch):
        raise typer.Exit(1)


@app.command("new")
def new_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the distribution: segplug-focal, or focal.")],
    kind: Annotated[str, typer.Option("--kind", help=f"Of its component: {', '.join(KINDS)} (or singular), command.")],
    folder: Annotated[Path, typer.Option("--folder", "-o", help="Where to put it; a folder of its name.")] = Path(),
) -> None:
    """Write a plugin to begin with: a distribution with one component, its tests and a README.

    It can be installed as it is, and its tests pass. Names of segplug's own components and commands are refused.
    """
    from segplug.cli.plugin_template import write_plugin

    for line in write_plugin(name, kind, folder):
        typer.echo(line)


def unusable_plugins(kernel: Kernel, name: str) -> list[PluginRecord]:
    """Plugins that cannot be used and which a name means: their own, their distribution's, or of a component."""
    unusable = [record for record in kernel.plugins if record.state is not State.ACTIVE]
    owner = name.partition(":")[0]
    return [record for record in unusable if record.is_called(owner) or name == record.distribution]


def nothing_called(kernel: Kernel, name: str) -> UsageError:
    """The error for a name that nothing answers to."""
    unusable = sum(record.state is not State.ACTIVE for record in kernel.plugins)
    text = f"no plugin or component is called {name!r}; `segplug plugins list` shows what there is"
    return UsageError(f"{text}, and the plugins that cannot be used ({unusable})" if unusable else text)


def _kernel(ctx: typer.Context) -> Kernel:
    settings = settings_of(ctx)
    return Kernel(pins=settings.pins, block=settings.block)


def _row(kernel: Kernel, provided: Provided) -> list[str]:
    component, plugin = provided.component, provided.plugin
    where = [provided.qualified_name, plugin.distribution, plugin.version]
    return [provided.kind.name, component.name, *where, _standing(kernel, provided), component.summary]


def _plugin_row(record: PluginRecord) -> list[str]:
    what = record.reason or f"hooks: {', '.join(record.hooks)}"
    return ["plugin", record.name, record.name, record.distribution, record.version, record.state.value, what]


def _short(row: list[str]) -> list[str]:
    """The row for people: where a component comes from and how it stands only if that is worth a word."""
    kind, name, _, distribution, version, state, summary = row
    notes = [f"from {distribution} {version}"] if distribution != BUILTIN_DISTRIBUTION else []
    notes += [state] if state not in ("in force", "active") else []
    return [kind, name, f"{summary} ({', '.join(notes)})" if notes else summary]


def _standing(kernel: Kernel, provided: Provided) -> str:
    """Whether a component is what its name stands for now."""
    inforce = kernel.registry.in_force(provided.kind.name, provided.component.name)
    if isinstance(inforce, str):
        return "conflict"
    return "in force" if inforce == provided else f"replaced by {inforce.qualified_name}"


def _command_rows(block: Sequence[str]) -> list[list[str]]:
    """Commands of other distributions, read from their metadata; none is imported."""
    points = command_points()
    free = [point.name for point in points if not blocking(point, block)]
    rows = []
    for point in points:
        state = "in force" if free.count(point.name) == 1 else "conflict"
        blocked = blocking(point, block)
        state = f"blocked, as plugin {blocked!r} is" if blocked else state
        state = "ignored: the name of a built-in command" if point.name in COMMANDS else state
        facts = (point.dist.name, point.dist.version) if point.dist else ("", "")
        rows.append(["command", point.name, point.name, *facts, state, point.value])
    return rows
