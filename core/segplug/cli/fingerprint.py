"""`segplug fingerprint`: measure a data set."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from segplug.cli.shell import (
    DatasetArgument,
    Format,
    FormatOption,
    MaxMemoryOption,
    WorkersOption,
    new_app,
    open_project,
    show,
)

app = new_app("Measure a data set: shapes, spacings, intensities.")


@app.command()
def fingerprint(
    ctx: typer.Context,
    dataset: DatasetArgument,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Measure again even if no file has changed.")] = False,
    workers: WorkersOption = None,
    max_memory: MaxMemoryOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Measure shapes, spacings and foreground intensities of the training cases, as nnU-Net does.

    Writes dataset_fingerprint.json into the data set's folder of preprocessed data.
    """
    import numpy as np

    from segplug.stages.fingerprint import fingerprint as fingerprint_stage

    with open_project(ctx, workers, None, max_memory) as project:
        made = fingerprint_stage(project, dataset, overwrite=overwrite)
    rows: list[list[Any]] = [
        ["cases", len(made.spacings)],
        ["median spacing", [round(float(v), 6) for v in np.median(made.spacings, axis=0)]],
        ["median shape", np.median(made.shapes_after_crop, axis=0).tolist()],
        ["median relative size after cropping", made.median_relative_size_after_cropping],
    ]
    for number, channel in enumerate(made.channels):
        middle = f"mean {channel.mean:.6g}, std {channel.std:.6g}"
        rows.append([f"foreground intensities, channel {number}", f"{channel.min:.6g} to {channel.max:.6g}, {middle}"])
    show(["what", "value"], rows, output)
