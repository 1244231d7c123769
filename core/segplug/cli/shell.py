"""What every command needs: an app in the house style, the project, and output for people and programs."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from segplug.cli.processes import refuse_several
from segplug.cli.settings import Roots, Settings, read_settings

if TYPE_CHECKING:
    from segplug.runtime.processes import Processes
    from segplug.runtime.project import Project


_FOLDED = 24
"""Characters that a column has at least before it folds; below, a table cannot be read."""


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
MaxMemoryOption = Annotated[
    float | None,
    typer.Option(
        "--max-memory",
        metavar="GB",
        help="GB (10^9 bytes) that this program and its workers stay below, with fewer cases at once.",
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="Output format.")]


class PlainCommand(TyperCommand):
    """A command whose usage line shows required arguments as they are written: DATASET, not {DATASET}."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces = super().collect_usage_pieces(ctx)
        return [piece[1:-1].upper() if piece.startswith("{") else piece for piece in pieces]


class PlainApp(typer.Typer):
    """An app of plain commands."""

    def command(self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **options: Any) -> Any:
        return super().command(name, cls=cls or PlainCommand, **options)


def new_app(help_text: str, *, group: bool = False) -> typer.Typer:
    """An app in the house style: plain help, tracebacks left to `main`. A group shows its help when called bare."""
    return PlainApp(
        help=help_text,
        no_args_is_help=group,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def settings_of(ctx: typer.Context) -> Settings:
    """Settings of this call: what stood before the command's name, segplug.toml, environment."""
    return read_settings(ctx.obj if isinstance(ctx.obj, Roots) else Roots())


ARGUMENTS = "segplug.arguments"
"""Key of a context's `meta`: the whole command line."""


def arguments_of(ctx: typer.Context) -> list[str]:
    """What stands behind `segplug` on the command line of this call."""
    return list(ctx.meta[ARGUMENTS])


@contextmanager
def open_project(
    ctx: typer.Context,
    workers: int | None = None,
    processes: Processes | None = None,
    max_memory: float | None = None,
    /,
    **folders: Path,
) -> Iterator[Project]:
    """The project of this call, with the progress display; says which replacements are in force. Ends its workers.

    `folders` (raw, preprocessed, results) stand in for those of the settings. `processes` are for commands that
    torchrun may start several times; the first one alone says something, and they share the cores. `max_memory` (GB) is
    for commands that prepare data.
    """
    if processes is None:
        refuse_several(ctx.command_path.partition(" ")[2])
    from segplug.cli.progress import ProgressDisplay
    from segplug.kernel import Kernel
    from segplug.runtime.project import Project, default_workers
    from segplug.runtime.user_choice import check_settings, configure_plugins
    from segplug.runtime.workspace import Workspace

    settings = settings_of(ctx)
    roots = {name: folders.get(name, getattr(settings, name)) for name in ("raw", "preprocessed", "results")}
    kernel = Kernel(pins=settings.pins, block=settings.block)
    check_settings(kernel, settings.pins, settings.executor, settings.executors)
    configure_plugins(kernel, settings.options)
    speaks = processes is None or processes.first
    for builtin, inforce in kernel.registry.replacements() if speaks else ():
        what = f"the built-in {builtin.component.name!r} of the {builtin.kind.name}"
        say(f"{what} is replaced by {inforce.component.name!r} of {inforce.plugin}")
    workers = settings.workers if workers is None else workers
    if workers is None and processes is not None:
        workers = max(1, default_workers() // processes.local_count)
    with (
        _short_warnings() if speaks else warnings.catch_warnings(action="ignore"),
        ProgressDisplay() as display,
        Project(
            Workspace(**roots),
            kernel,
            workers=workers,
            executor=settings.executor,
            executor_options=settings.executors,
            max_memory_gb=max_memory,
        ) as project,
    ):
        kernel.register(display, "segplug-progress")
        yield project


def several(folds: Sequence[str] | None) -> list[str] | None:
    """The values of `--fold`, each of which may be several with commas between them.

    Raises:
        UsageError: there is nothing before or after a comma.
    """
    from segplug.errors import UsageError

    if folds is None:
        return None
    found = [part.strip() for fold in folds for part in fold.split(",")]
    if not all(found):
        raise UsageError(f"--fold {' '.join(folds)!r}: expected a fold, or several with commas between them: 0,1,2")
    return found


def say(text: str) -> None:
    """A line for the user, beside the output proper (standard error)."""
    typer.echo(text, err=True)


def show(columns: Sequence[str], rows: Sequence[Sequence[Any]], output: Format = Format.TABLE, title: str = "") -> None:
    """Print rows as a table, or as JSON.

    In a terminal nothing is cut: only wide columns fold, and rows that do not fit become blocks of lines. Without
    a terminal, a row is one plain line with tabs between its cells, of any width: nothing is folded or cut.
    """
    if output is Format.JSON:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2, default=str))
    elif sys.stdout.isatty():
        _draw(columns, [[_cell(value) for value in row] for row in rows], title)
    else:
        for row in (columns, *rows):
            typer.echo("\t".join(_cell(value) for value in row))


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    """A table whose wide columns fold, the others being whole; where that has no room, a block of lines per row."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    if sum(min(width, _FOLDED) + 3 for width in widths) + 1 <= console.width:
        table = Table(title=title or None, title_justify="left")
        for column, width in zip(columns, widths, strict=True):
            table.add_column(column, overflow="fold", no_wrap=width <= _FOLDED)
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    indent = max(map(len, columns[1:]))
    for row in rows:
        console.print(Text(row[0], style="bold"), soft_wrap=True)
        for name, cell in zip(columns[1:], row[1:], strict=True):
            console.print(Text(f"  {name:<{indent}}  {cell}"), soft_wrap=True)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    # reasons may be another program's message of many lines; spaces within names stay as they are
    return re.sub(r"\s*[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\s*", " ", text.strip("\r\n"))


@contextmanager
def _short_warnings() -> Iterator[None]:
    """One line a warning: users have no use for our source lines."""

    def short(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = short
        yield
