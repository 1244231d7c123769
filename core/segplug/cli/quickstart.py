"""`segplug quickstart`: the whole path on a bundled real sample."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from segplug.cli.shell import WorkersOption, new_app, open_project, say, settings_of
from segplug.runtime.wording import counted

app = new_app("The whole path on a bundled real sample, in minutes.")


@app.command()
def quickstart(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Folder for everything that is made.")] = Path(
        "segplug-quickstart"
    ),
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the trainer, as trainer.epochs=20 (repeat)."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    workers: WorkersOption = None,
) -> None:
    """Verify, fingerprint, plan, preprocess, train, predict and evaluate 24 real MRI cases (hippocampus).

    Prints the Dice of the cases that were not trained on. Called again it keeps what is finished.
    """
    from dataclasses import replace

    from segplug.cli.evaluation_table import show_evaluation
    from segplug.stages.quickstart import RECIPE, quickstart_folders
    from segplug.stages.quickstart import quickstart as quickstart_stage

    began = time.monotonic()
    defaults = settings_of(ctx)
    training = replace(
        RECIPE,
        overrides=(*RECIPE.overrides, *(set_ or ())),
        device=device or defaults.device,
        precision=precision or defaults.precision,
    )
    with open_project(ctx, workers, **quickstart_folders(out)) as project:
        done = quickstart_stage(project, out, training=training)
    cases = len(done.evaluation.cases)
    say(
        f"trained on {counted(len(done.training_cases), 'case')}{' before, kept' if done.kept else ''}; "
        f"not trained on: {cases}"
    )
    show_evaluation(done.evaluation, done.labels)
    typer.echo(f"mean foreground Dice on {counted(cases, 'case')} not trained on: {done.evaluation.mean_dice:.4f}")
    typer.echo(f"look at      {done.overlays}/*.png")
    typer.echo(f"predictions  {done.predictions}, scored in {done.summary}")
    typer.echo(f"model        {done.trained.model_folder}")
    typer.echo(f"predict with it: segplug predict -i {done.images} -o PREDICTIONS -m {done.trained.model_folder}")
    say(f"{time.monotonic() - began:.0f} s in all; calling it again keeps what is finished")
