"""`segplug report`: one page about a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segplug.cli.shell import DatasetArgument, WorkersOption, new_app, open_project, say

app = new_app("One page about a data set and its models.")


@app.command()
def report(
    ctx: typer.Context,
    dataset: DatasetArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File [default: report.html with the results].")
    ] = None,
    worst: Annotated[int, typer.Option("--worst", min=0, help="Cases to show with overlays.")] = 6,
    workers: WorkersOption = None,
) -> None:
    """Write an HTML page about a data set: images, plans, trainings, metrics of every case, worst cases, the choice.

    The page is one file that opens in any browser, without a network. It shows what there is; call it at any time.
    """
    from segplug.stages.report import report as report_stage

    with open_project(ctx, workers) as project:
        say(f"written: {report_stage(project, dataset, output=output, worst=worst)}")
