"""What every command needs: an app in the house style, the project, and output for people and programs."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segplug.cli.settings import Roots, Settings, read_settings

if TYPE_CHECKING:
    from segplug.runtime.project import Project


class Format(StrEnum):
    """Output of list-like commands."""

    TABLE = "table"
    JSON = "json"


DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="Id (4), name (Dataset004_X) or path.")]
PlansNameOption = Annotated[
    str | None,
    typer.Option("--plans-name", "-p", help="Name of the plans [default: nnUNetPlans, or the only ones there are]."),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=0, help="Worker processes; 0 works in-process. [default: one per core]")
]
FormatOption = Annotated[Format, typer.Option("--format", help="Output format.")]


def new_app(help_text: str, *, group: bool = False) -> typer.Typer:
    """An app in the house style: plain help, tracebacks left to `main`. A group shows its help when called bare."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=group,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def settings_of(ctx: typer.Context) -> Settings:
    """Settings of this call: what stood before the command's name, segplug.toml, environment."""
    return read_settings(ctx.obj if isinstance(ctx.obj, Roots) else Roots())


@contextmanager
def open_project(ctx: typer.Context, workers: int | None = None, **folders: Path) -> Iterator[Project]:
    """The project of this call, with the progress display; says which replacements are in force. Ends its workers.

    `folders` (raw, preprocessed, results) stand in for those of the settings.
    """
    from segplug.cli.progress import ProgressDisplay
    from segplug.kernel import Kernel
    from segplug.runtime.project import Project
    from segplug.runtime.user_choice import check_settings
    from segplug.runtime.workspace import Workspace

    settings = settings_of(ctx)
    roots = {name: folders.get(name, getattr(settings, name)) for name in ("raw", "preprocessed", "results")}
    kernel = Kernel(pins=settings.pins, block=settings.block)
    check_settings(kernel, settings.pins, settings.executor)
    for builtin, inforce in kernel.registry.replacements():
        what = f"the built-in {builtin.component.name!r} of the {builtin.kind.name}"
        say(f"{what} is replaced by {inforce.component.name!r} of {inforce.plugin}")
    workers = settings.workers if workers is None else workers
    with (
        _short_warnings(),
        ProgressDisplay() as display,
        Project(Workspace(**roots), kernel, workers=workers, executor=settings.executor) as project,
    ):
        kernel.register(display, "segplug-progress")
        yield project


def say(text: str) -> None:
    """A line for the user, beside the output proper (standard error)."""
    typer.echo(text, err=True)


def show(columns: Sequence[str], rows: Sequence[Sequence[Any]], output: Format = Format.TABLE, title: str = "") -> None:
    """Print rows as a table, or as JSON.

    Without a terminal, a row is one plain line with tabs between its cells, of any width: nothing is folded or cut.
    """
    if output is Format.JSON:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2, default=str))
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title or None, title_justify="left")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(_cell(value).replace("[", r"\[") for value in row))
        Console().print(table)
    else:
        for row in (columns, *rows):
            typer.echo("\t".join(_cell(value) for value in row))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


@contextmanager
def _short_warnings() -> Iterator[None]:
    """One line a warning: users have no use for our source lines."""

    def short(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = short
        yield
