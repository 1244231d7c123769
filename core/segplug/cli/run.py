"""`segplug run`: from a raw data set to trained models."""

from __future__ import annotations

from typing import Annotated

import typer

from segplug.cli.shell import (
    DatasetArgument,
    Format,
    FormatOption,
    WorkersOption,
    new_app,
    open_project,
    say,
    settings_of,
    several,
    show,
)

app = new_app("All of it, resumable.")


@app.command()
def run(
    ctx: typer.Context,
    dataset: DatasetArgument,
    configuration: Annotated[
        list[str] | None,
        typer.Option("--configuration", "-c", help="Configuration; repeat for several. [default: all]"),
    ] = None,
    fold: Annotated[
        list[str] | None,
        typer.Option(
            "--fold",
            "--folds",
            "-f",
            help="Fold, or all; repeat for several, or 0,1,2. A number past splits_final.json is a random split. "
            "[default: each of the file, five unless it has others]",
        ),
    ] = None,
    planner: Annotated[
        str | None, typer.Option("--planner", help="Planner [default: plans that are there, else default].")
    ] = None,
    memory_gb: Annotated[float | None, typer.Option("--memory-gb", help="GPU memory that training may use.")] = None,
    plans_name: Annotated[str | None, typer.Option("--plans-name", "-p", help="Name of the plans.")] = None,
    trainer: Annotated[
        str | None, typer.Option("--trainer", "-t", help="Trainer [default: the plans', else nnunet].")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the trainer, as trainer.lr=1e-3 (repeat)."),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Number of epochs.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of all randomness [default: 0].")] = None,
    workers: WorkersOption = None,
    max_memory: Annotated[
        float | None,
        typer.Option(
            "--max-memory",
            metavar="GB",
            help="GB that verifying, measuring and preprocessing stay below. Training takes what it needs.",
        ),
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Verify, fingerprint, plan, preprocess and train every configuration and fold, and find the best.

    With all folds trained, it ends with what 'segplug select' does, and prints the command to predict with the choice.

    Call it again after an interruption, or with further data: what is finished and unchanged is kept, the rest is made.
    """
    from segplug.cli.select import show_selection, tell_choice
    from segplug.stages.run import Planning, Training
    from segplug.stages.run import run as run_stage

    defaults = settings_of(ctx)
    with open_project(ctx, workers, None, max_memory) as project:
        done = run_stage(
            project,
            dataset,
            configurations=configuration,
            folds=several(fold),
            planning=Planning(planner, memory_gb, plans_name=plans_name),
            training=Training(
                trainer,
                tuple(set_ or ()),
                epochs,
                device or defaults.device,
                precision or defaults.precision,
                seed,
            ),
        )
    rows = [
        [
            f.configuration,
            f.trained.fold,
            f.evaluation.mean_dice,
            len(f.evaluation.cases),
            "kept" if f.kept else "trained",
        ]
        for f in done.folds
    ]
    show(["configuration", "fold", "mean Dice", "validation cases", "state"], rows, output)
    if done.selection is not None and output is Format.TABLE:
        show_selection(done.selection, output)
    for folder in dict.fromkeys(f.trained.model_folder for f in done.folds):
        say(f"model: {folder}")
    if done.selection is not None:
        tell_choice(done.selection, project.workspace)
    else:
        say(f"with every fold trained, 'segplug select {done.plan.dataset_name}' finds the best configuration")
