"""`segplug ensemble`: average the probabilities of several models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segplug.cli.shell import WorkersOption, new_app, open_project, say

app = new_app("Average the probabilities of several models.")


@app.command()
def ensemble(
    ctx: typer.Context,
    source: Annotated[
        list[Path], typer.Option("--input", "-i", help="Folder of predictions with probabilities; repeat for each.")
    ],
    target: Annotated[Path, typer.Option("--output", "-o", help="Folder for the label maps.")],
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Keep the mean probabilities in CASE.npz.")
    ] = False,
    continue_: Annotated[bool, typer.Option("--continue", help="Keep what an earlier call finished.")] = False,
    dataset_json: Annotated[
        Path | None, typer.Option("--dataset-json", help="dataset.json [default: that of the first folder].")
    ] = None,
    plans: Annotated[
        Path | None, typer.Option("--plans", help="Plans [default: plans.json of the first folder].")
    ] = None,
    workers: WorkersOption = None,
) -> None:
    """Average what 'segplug predict --save-probabilities' wrote to several folders, and write the label maps it says.

    Probabilities are read from the disk in pieces. Cases that cannot be averaged are named, the others are written, and
    the exit code is 1.
    """
    from segplug.stages.ensemble import ensemble_folders

    with open_project(ctx, workers) as project:
        done = ensemble_folders(
            project,
            source,
            target,
            save_probabilities=save_probabilities,
            continue_=continue_,
            dataset_json=dataset_json,
            plans=plans,
        )
    kept = f", {len(done.kept)} kept from before" if done.kept else ""
    say(f"averaged {len(done.made)} cases of {len(source)} folders{kept}: {done.folder}")
