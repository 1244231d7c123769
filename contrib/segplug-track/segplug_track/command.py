"""`segplug track`: deliver what could not be delivered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segplug.errors import DataError, UsageError

app = typer.Typer(
    help="Experiment tracking by TensorBoard and MLflow.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _group() -> None:
    """Experiment tracking by TensorBoard and MLflow."""


@app.command()
def push(
    ctx: typer.Context,
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[FOLDER...]", help="Where to look. [default: the folder of results]")
    ] = None,
) -> None:
    """Deliver what is not yet delivered of the runs in and below folders, where [options.track] says."""
    from segplug import project_of_command
    from segplug_track import current
    from segplug_track.journal import FOLDER, Journal

    with project_of_command(ctx) as project:
        destinations = current().options.destinations
        if not destinations:
            raise UsageError("nowhere to deliver to: set mlflow in [options.track], or install TensorBoard")
        results = project.workspace.results
        roots = folders or ([] if results is None else [results])
        missing = [str(folder) for folder in roots if not folder.is_dir()]
        if missing or not roots:
            raise UsageError(f"no folder {', '.join(missing) or 'of results is set; name others'}")
        found = sorted(file.parent for root in roots for file in root.rglob(f"{FOLDER}/{Journal.FILE}"))
        if not found:
            raise UsageError(f"nothing was tracked in {', '.join(map(str, roots))}: no {FOLDER}/{Journal.FILE} there")
        failed = current().push(found)
        if failed:
            raise DataError("; ".join(f"{name}: {problem}" for name, problem in failed))
        typer.echo(f"delivered: {len(found)} runs, {', '.join(destinations)}")
