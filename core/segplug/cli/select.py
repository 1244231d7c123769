"""`segplug select`: find the best model or pair of models by cross-validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from segplug.runtime.workspace import Workspace
    from segplug.stages.select import Selection

app = new_app("Find the best model or pair of models by cross-validation.")


@app.command()
def select(
    ctx: typer.Context,
    dataset: DatasetArgument,
    configuration: Annotated[
        list[str] | None,
        typer.Option(
            "--configuration", "-c", help="Configuration; repeat for several. [default: all that are trained]"
        ),
    ] = None,
    plans_name: Annotated[
        list[str] | None,
        typer.Option("--plans-name", "-p", help="Plans; repeat for several. [default: nnUNetPlans, or the only ones]"),
    ] = None,
    trainer: Annotated[
        list[str] | None,
        typer.Option(
            "--trainer", "-t", help="Trainer's folder name; repeat. [default: nnUNetTrainer, or the only one]"
        ),
    ] = None,
    fold: Annotated[
        list[str] | None,
        typer.Option(
            "--fold",
            "--folds",
            "-f",
            help="Fold; repeat for several, or 0,1,2. [default: those of splits_final.json]",
        ),
    ] = None,
    no_ensembles: Annotated[bool, typer.Option("--no-ensembles", help="Compare single models only.")] = False,
    postprocessor: Annotated[
        str, typer.Option("--postprocessor", help="A component of kind postprocessors: NAME or NAME,option=VALUE,...")
    ] = "largest_component",
    device: Annotated[str | None, typer.Option("--device", help="For cases that have to be predicted again.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    workers: WorkersOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Compare every trained configuration and every pair of them, and decide on postprocessing for the best.

    Prints the mean Dice of the cross-validation of each. The choice is kept in the data set's folder of results:
    'segplug predict -d DATASET --choice' predicts with all of it. Pairs are made of the probabilities of the validation
    cases; where these were not kept, the cases are predicted again.
    """
    from segplug.runtime.fold_work import parse_fold
    from segplug.stages.select import select as select_stage
    from segplug.stages.validation_probabilities import Computing

    defaults = settings_of(ctx)
    with open_project(ctx, workers) as project:
        selection = select_stage(
            project,
            dataset,
            configurations=configuration,
            plans_names=plans_name,
            trainers=trainer,
            folds=None if (named := several(fold)) is None else [parse_fold(f) for f in named],
            ensembles=not no_ensembles,
            postprocessor=postprocessor,
            computing=Computing(device or defaults.device, precision or defaults.precision),
        )
        workspace = project.workspace
    show_selection(selection, output)
    tell_choice(selection, workspace)


def show_selection(selection: Selection, output: Format) -> None:
    """A table of everything that was compared; the best has its Dice after postprocessing too."""
    rows = [
        [
            " + ".join(map(str, candidate.members)),
            candidate.mean_dice,
            selection.choice.postprocessed_dice if candidate is selection.best else None,
            "best" if candidate is selection.best else "",
        ]
        for candidate in selection.candidates
    ]
    show(["candidate", "mean Dice", "after postprocessing", "choice"], rows, output)


def tell_choice(selection: Selection, workspace: Workspace) -> None:
    """Where the choice is, and how to predict with it."""
    from segplug.runtime.choice_codec import predict_command

    say(f"written: {workspace.choice_file(selection.choice.dataset)}")
    say(f"step by step: {workspace.instructions_file(selection.choice.dataset)}")
    say(f"predict with it: {predict_command(selection.choice)}")
