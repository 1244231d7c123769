"""`segplug onnx`: trained models as ONNX files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from segplug.errors import UsageError

app = typer.Typer(
    help="Trained models as ONNX files, with all that is needed to use them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Precision(StrEnum):
    """Of the exported networks."""

    FP32 = "fp32"
    INT8 = "int8"


class Which(StrEnum):
    """Checkpoints that training writes."""

    FINAL = "final"
    BEST = "best"
    LATEST = "latest"


@app.callback()
def onnx() -> None:
    """Trained models as ONNX files, with all that is needed to use them."""


@app.command()
def export(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL_FOLDER", help="Trainer__Plans__Configuration.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write to [default: MODEL_FOLDER/onnx, where predictors look]."),
    ] = None,
    fold: Annotated[
        list[str] | None, typer.Option("--fold", "-f", help="Fold; repeat for several. [default: all trained ones]")
    ] = None,
    checkpoint: Annotated[Which, typer.Option(help="Which checkpoint of each fold.")] = Which.FINAL,
    precision: Annotated[
        Precision, typer.Option(help="int8 writes quantised networks beside those in full precision.")
    ] = Precision.FP32,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="For int8: folder of images named CASE_0000.ext.")
    ] = None,
    patches: Annotated[int, typer.Option("--patches", min=1, help="For int8: patches taken from the images.")] = 32,
    allow_provider_change: Annotated[
        bool, typer.Option("--allow-provider-change", help="Accept other plugins than those the model was made with.")
    ] = False,
) -> None:
    """Write an ONNX file per fold, with plans.json, dataset.json, recipe.json and predict.py.

    recipe.json tells what is done before and after the network, and the SHA-256 of each file; predict.py does it with
    NumPy and ONNX Runtime alone. What is there already, of the same weights, is kept.

    With --precision int8, networks are quantised for ONNX Runtime and for OpenVINO, whichever is installed.
    """
    from segplug import PredictionSettings, load_model, project_of_command
    from segplug_onnx.stage import export_model

    if (precision is Precision.INT8) != (calibration is not None):
        raise UsageError("--precision int8 goes with --calibration IMAGES: ranges of values are found on real images")
    folds = None if fold is None else [int(f) if f.isdecimal() else f for each in fold for f in each.split(",")]
    with project_of_command(ctx, 0) as project:
        settings = PredictionSettings(device="cpu", allow_provider_change=allow_provider_change)
        loaded = load_model(model, folds=folds, checkpoint=checkpoint.value, settings=settings, project=project)
        done = export_model(project, loaded.trained, output, calibration=calibration, patches=patches)
    for path in done:
        typer.echo(path)
