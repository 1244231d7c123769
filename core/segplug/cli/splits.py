"""`segplug splits`: divide the training cases into folds."""

from __future__ import annotations

from typing import Annotated

import typer

from segplug.cli.shell import DatasetArgument, Format, FormatOption, new_app, open_project, say, show

app = new_app("Divide the training cases into folds.")


@app.command()
def splits(
    ctx: typer.Context,
    dataset: DatasetArgument,
    folds: Annotated[int | None, typer.Option("--folds", min=2, help="How many. [default: 5]")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the shuffling. [default: 12345]")] = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            help="Keep cases together, as those of a patient: a regular expression on names, or FILE.csv:COLUMN.",
        ),
    ] = None,
    stratify: Annotated[
        str | None,
        typer.Option("--stratify", help="Give each fold its share, as of each scanner: given like --group."),
    ] = None,
    splitter: Annotated[
        str | None,
        typer.Option(
            "--splitter",
            help="A component of kind splitters: NAME or NAME,option=VALUE,... [default: kfold, grouped_kfold]",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other folds that are there.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Make splits_final.json, or show the folds that are there.

    Without it the first training makes nnU-Net's five folds. A splits_final.json in the raw data set is taken over,
    here and by 'segplug plan'. Fold numbers past the file are random splits of 80 to 20; fold 'all' trains on every
    case.
    """
    from segplug.stages.split_folds import split_folds

    with open_project(ctx, 0) as project:
        made = split_folds(
            project,
            dataset,
            folds=folds,
            seed=seed,
            group=group,
            stratify=stratify,
            splitter=splitter,
            overwrite=overwrite,
        )
    columns = ["fold", "training cases", "validation cases"]
    columns += ["validation groups"] if made.groups else []
    columns += ["validation strata"] if made.strata else []
    rows = []
    for number, split in enumerate(made.splits):
        row: list[object] = [number, len(split.train), len(split.val)]
        if made.groups:
            row.append(len({made.groups[case] for case in split.val}))
        if made.strata:
            found = [made.strata[case] for case in split.val]
            row.append([f"{stratum} {found.count(stratum)}" for stratum in sorted(set(found))])
        rows.append(row)
    show(columns, rows, output)
    say(f"{'there already' if made.kept else 'written'}: {made.file}")
