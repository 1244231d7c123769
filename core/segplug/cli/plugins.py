"""`segplug plugins`: what is installed, what is in force, and why something is not."""

from __future__ import annotations

import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from segplug.cli.main import COMMAND_GROUP, COMMANDS
from segplug.cli.shell import Format, FormatOption, new_app, say, settings_of, show
from segplug.errors import UsageError
from segplug.kernel import KINDS, Kernel, Provided

app = new_app("What is installed, what is in force, and why something is not.", group=True)

KindOption = Annotated[str | None, typer.Option("--kind", help=f"Only this kind: {', '.join(KINDS)}.")]

BUILTIN_DISTRIBUTION = "segplug"

COLUMNS = ("kind", "name", "qualified_name", "distribution", "version", "state", "summary")


@app.command("list")
def list_(ctx: typer.Context, kind: KindOption = None, output: FormatOption = Format.TABLE) -> None:
    """List every component, plugin and command, and which is in force.

    Components stand by kind with the plugin behind each, then what others installed.
    """
    kernel = _kernel(ctx)
    rows = [_row(kernel, p) for name in (KINDS if kind is None else [kind]) for p in kernel.registry.all(name)]
    if kind is None:
        rows += [
            [
                "plugin",
                r.name,
                r.name,
                r.distribution,
                r.version,
                r.state.value,
                r.reason or f"hooks: {', '.join(r.hooks)}",
            ]
            for r in kernel.plugins
            if not r.builtin
        ]
        rows += _command_rows()
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
    for record in kernel.plugins:
        if record.name == name:
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
    for _, command, _, distribution, version, state, value in _command_rows():
        if name == command:
            rows.append(["command", f"{command} ({distribution} {version}), {value}"])
            rows.append(["  state", state])
    if not rows:
        raise UsageError(f"no plugin or component is called {name!r}; `segplug plugins list` shows what there is")
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

    It can be installed as it is, and its tests pass.
    """
    from segplug.cli.plugin_template import write_plugin

    for line in write_plugin(name, kind, folder):
        typer.echo(line)


def _kernel(ctx: typer.Context) -> Kernel:
    settings = settings_of(ctx)
    return Kernel(pins=settings.pins, block=settings.block)


def _row(kernel: Kernel, provided: Provided) -> list[str]:
    component, plugin = provided.component, provided.plugin
    where = [provided.qualified_name, plugin.distribution, plugin.version]
    return [provided.kind.name, component.name, *where, _standing(kernel, provided), component.summary]


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


def _command_rows() -> list[list[str]]:
    """Commands of other distributions, read from their metadata; none is imported."""
    points = sorted(
        {(p.name, p.value, p.dist.name, p.dist.version) for p in entry_points(group=COMMAND_GROUP) if p.dist}
    )
    names = [name for name, *_ in points]
    rows = []
    for name, value, distribution, version in points:
        state = "in force" if names.count(name) == 1 else "conflict"
        state = "ignored: the name of a built-in command" if name in COMMANDS else state
        rows.append(["command", name, name, distribution, version, state, value])
    return rows
