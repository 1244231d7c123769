"""`segplug preprocess`: crop, normalise and resample the training cases."""

from __future__ import annotations

from typing import Annotated

import typer

from segplug.cli.shell import DatasetArgument, MaxMemoryOption, PlansNameOption, WorkersOption, new_app, open_project

app = new_app("Crop, normalise and resample the training cases.")


@app.command()
def preprocess(
    ctx: typer.Context,
    dataset: DatasetArgument,
    configuration: Annotated[
        list[str] | None,
        typer.Option("--configuration", "-c", help="Configuration to prepare; repeat for several. [default: all]"),
    ] = None,
    plans_name: PlansNameOption = None,
    workers: WorkersOption = None,
    max_memory: MaxMemoryOption = None,
) -> None:
    """Crop, normalise and resample the training cases as the plan says.

    What is whole and current is kept, so a run that was ended can be called again. Cases that cannot be preprocessed
    are named at the end, and the exit code is 1; the others are kept.
    """
    from segplug.stages.preprocess import preprocess as preprocess_stage

    with open_project(ctx, workers, None, max_memory) as project:
        done = preprocess_stage(project, dataset, configurations=configuration or None, plans_name=plans_name)
    typer.echo(done.summary())
