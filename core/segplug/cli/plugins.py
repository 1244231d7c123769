"""`segplug plugins`: what is installed, what is in force, and why something is not."""

from __future__ import annotations

from typing import Annotated

import typer

from segplug.cli.shell import Format, FormatOption, new_app, say, settings_of, show
from segplug.errors import PluginError
from segplug.kernel import KINDS, Kernel

app = new_app("What is installed, what is in force, and why something is not.", group=True)

KindOption = Annotated[str | None, typer.Option("--kind", help=f"Only this kind: {', '.join(KINDS)}.")]


@app.command("list")
def list_(ctx: typer.Context, kind: KindOption = None, output: FormatOption = Format.TABLE) -> None:
    """List components by kind, the plugin behind each, and plugins that are not active."""
    kernel = _kernel(ctx)
    kinds = [kind] if kind is not None else list(KINDS)
    rows = []
    for name in kinds:
        for provided in kernel.registry.all(name):
            component, plugin = provided.component, provided.plugin
            state = _standing(kernel, name, provided.qualified_name, component.name)
            rows.append(
                [
                    name,
                    component.name,
                    provided.qualified_name,
                    plugin.distribution,
                    plugin.version,
                    state,
                    component.summary,
                ]
            )
    columns = ["kind", "name", "qualified_name", "distribution", "version", "state", "summary"]
    if kind is None:
        for record in kernel.plugins:
            if record.reason:
                where = [record.distribution, record.version, record.state.value, record.reason]
                rows.append(["(plugin)", record.name, record.name, *where])
    show(columns, rows, output)
    for problem in kernel.registry.conflicts():
        say(f"conflict: {problem}")


@app.command("show")
def show_(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Plugin, or component by name, alias or plugin:name.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show a plugin with its components, or every component that answers to a name."""
    kernel = _kernel(ctx)
    rows: list[list[str]] = []
    for record in kernel.plugins:
        if record.name == name:
            rows.append(["plugin", f"{record.name} ({record.distribution} {record.version}), {record.module}"])
            rows.append(["state", f"{record.state.value} {record.reason}".strip()])
    for kind in KINDS.values():
        for provided in kernel.registry.all(kind.name):
            component = provided.component
            if name in (provided.plugin.name, provided.qualified_name) or provided.answers_to(name):
                rows.append([f"{kind.name} component", f"{provided.qualified_name}: {component.summary}"])
                rows.append(["  aliases", ", ".join(component.aliases)] if component.aliases else ["  aliases", "-"])
                rows.append(["  implementation", str(component.factory)])
                rows.append(["  protocol", f"{kind.protocol} ({kind.style.value} style)"])
                rows.append(["  state", _standing(kernel, kind.name, provided.qualified_name, component.name)])
    if not rows:
        raise PluginError(f"no plugin or component is called {name!r}; `segplug plugins list` shows what there is")
    show(["what", "value"], rows, output)


def _kernel(ctx: typer.Context) -> Kernel:
    settings = settings_of(ctx)
    return Kernel(pins=settings.pins, block=settings.block)


def _standing(kernel: Kernel, kind: str, qualified: str, name: str) -> str:
    """Whether a component is what its name stands for now."""
    try:
        inforce = kernel.registry.resolve(kind, name)
    except PluginError:
        return "conflict"
    if inforce.qualified_name == qualified:
        return "in force"
    return f"replaced by {inforce.qualified_name}"
