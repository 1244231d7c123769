"""`segplug train`: train one fold of one configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segplug.cli.processes import launch, processes_here
from segplug.cli.shell import (
    DatasetArgument,
    PlansNameOption,
    WorkersOption,
    arguments_of,
    new_app,
    open_project,
    settings_of,
)
from segplug.errors import UsageError

app = new_app("Train one fold of one configuration.")


@app.command()
def train(
    ctx: typer.Context,
    dataset: DatasetArgument,
    configuration: Annotated[
        str, typer.Argument(metavar="CONFIG", help="Configuration of the plans, such as 2d or 3d_fullres.")
    ],
    fold: Annotated[str, typer.Argument(metavar="FOLD", help="0 to 4, or all for every case.")],
    plans_name: PlansNameOption = None,
    trainer: Annotated[
        str | None, typer.Option("--trainer", "-t", help="Trainer [default: the plans', else nnunet].")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the trainer, as trainer.lr=1e-3, trainer.loss=NAME, trainer.loss.OPTION=VALUE (repeat).",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Number of epochs.")] = None,
    continue_: Annotated[
        bool, typer.Option("--continue", help="Go on where an interrupted training stopped; keep what is finished.")
    ] = False,
    allow_provider_change: Annotated[
        bool,
        typer.Option("--allow-provider-change", help="Continue with other plugins than those the training began with."),
    ] = False,
    pretrained: Annotated[
        Path | None,
        typer.Option("--pretrained", help="Begin with the weights of this checkpoint (segplug, nnU-Net v2 or nnssl)."),
    ] = None,
    save_probabilities: Annotated[
        bool,
        typer.Option("--save-probabilities", help="Keep those of the validation cases: 'segplug select' wants them."),
    ] = False,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of all randomness [default: 0].")] = None,
    workers: WorkersOption = None,
    together: Annotated[
        int | None,
        typer.Option(
            "--processes",
            "--num-gpus",
            min=1,
            help="Train in so many processes of this machine together, each on a GPU of its own. [default: 1]",
        ),
    ] = None,
) -> None:
    """Train one fold, then predict and evaluate its validation cases.

    A fold that was trained before is trained anew, and its old folder kept under another name; with --continue what is
    finished stays as it is. The number of workers changes the speed and nothing else.

    Several GPUs: --num-gpus 2, or on several machines torchrun ... -m segplug train ...; batches are divided among
    them, and the result is that of one. --workers then counts for each process.
    """
    from segplug.runtime.evaluation import SUMMARY, read_summary
    from segplug.stages.train import train as train_stage

    processes = processes_here()
    if together is not None and together != processes.local_count:
        if processes.several:
            raise UsageError(
                f"--processes {together}: torchrun has started {processes.local_count}; leave the option out"
            )
        launch(arguments_of(ctx), together)
        return
    settings = settings_of(ctx)
    with open_project(ctx, workers, processes) as project:
        trained = train_stage(
            project,
            dataset,
            configuration,
            fold,
            plans_name=plans_name,
            trainer=trainer,
            overrides=set_ or (),
            epochs=epochs,
            device=device or settings.device,
            precision=precision or settings.precision,
            seed=seed,
            continue_=continue_,
            allow_provider_change=allow_provider_change,
            pretrained=pretrained,
            save_probabilities=save_probabilities,
            processes=processes,
        )
    if not processes.first:
        return
    dice = read_summary(trained.validation_folder / SUMMARY).mean_dice
    typer.echo(f"{trained.folder}: mean Dice of the validation cases {dice:.4f}")
