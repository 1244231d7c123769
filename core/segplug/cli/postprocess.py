"""`segplug postprocess`: decide on clean-up, and apply it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segplug.cli.shell import WorkersOption, new_app, open_project, say

app = new_app("Decide on clean-up, and apply it.", group=True)

DatasetJsonOption = Annotated[
    Path | None, typer.Option("--dataset-json", help="dataset.json [default: the one beside the predictions].")
]
PlansOption = Annotated[
    Path | None, typer.Option("--plans", help="Plans [default: plans.json beside the predictions].")
]


@app.command()
def fit(
    ctx: typer.Context,
    prediction: Annotated[Path, typer.Option("--input", "-i", help="Folder of predictions of cases not trained on.")],
    reference: Annotated[Path, typer.Option("--reference", "-r", help="Folder of reference label maps.")],
    postprocessor: Annotated[
        str, typer.Option("--postprocessor", help="A component of kind postprocessors: NAME or NAME,option=VALUE,...")
    ] = "largest_component",
    dataset_json: DatasetJsonOption = None,
    plans: PlansOption = None,
    workers: WorkersOption = None,
) -> None:
    """Decide what clean-up helps on predictions whose references are known, as those of a cross-validation.

    Writes postprocessing.json (nnU-Net's) and summary.json beside the predictions, and the cleaned-up label maps to
    postprocessed/ there.
    """
    from segplug.stages.postprocess import fit_postprocessing

    with open_project(ctx, workers) as project:
        fitted = fit_postprocessing(
            project, prediction, reference, postprocessor=postprocessor, dataset_json=dataset_json, plans=plans
        )
    typer.echo(f"mean Dice {fitted.before.mean_dice:.4f}, after postprocessing {fitted.after.mean_dice:.4f}")
    say(f"written: {fitted.file}")


@app.command()
def apply(
    ctx: typer.Context,
    source: Annotated[Path, typer.Option("--input", "-i", help="Folder of label maps.")],
    target: Annotated[Path, typer.Option("--output", "-o", help="Folder for the cleaned-up label maps.")],
    decision: Annotated[
        Path, typer.Option("--decision", help="postprocessing.json, of segplug or nnU-Net, or the folder it is in.")
    ],
    continue_: Annotated[bool, typer.Option("--continue", help="Keep what an earlier call finished.")] = False,
    dataset_json: DatasetJsonOption = None,
    plans: PlansOption = None,
    workers: WorkersOption = None,
) -> None:
    """Clean up every label map of a folder as was decided."""
    from segplug.stages.postprocess import apply_postprocessing

    with open_project(ctx, workers) as project:
        done = apply_postprocessing(
            project, source, target, decision, dataset_json=dataset_json, plans=plans, continue_=continue_
        )
    kept = f", {len(done.kept)} kept from before" if done.kept else ""
    say(f"postprocessed {len(done.made)} cases{kept}: {done.folder}")
