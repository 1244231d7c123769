"""`segplug dataset`: raw data sets: checked, made from others, divided."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segplug.cli.shell import (
    DatasetArgument,
    Format,
    FormatOption,
    MaxMemoryOption,
    WorkersOption,
    new_app,
    open_project,
    say,
)

if TYPE_CHECKING:
    from segplug.runtime.findings import Finding
    from segplug.stages.verify import Verification

app = new_app("Check, make and divide raw data sets.", group=True)


@app.callback()
def group() -> None:
    """Check, make and divide raw data sets."""


@app.command()
def verify(
    ctx: typer.Context,
    dataset: DatasetArgument,
    workers: WorkersOption = None,
    max_memory: MaxMemoryOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Read every file of a raw data set completely and list all that is wrong with it.

    Errors make the exit code 1; warnings alone do not.
    """
    from segplug.stages.verify import verify as verify_stage

    with open_project(ctx, workers, None, max_memory) as project:
        verification = verify_stage(project, dataset)
    _report(verification, output)


@app.command()
def overlay(
    ctx: typer.Context,
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the pictures.")],
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="DIR", help="Predicted label maps, to show too; others are left out."),
    ] = None,
    channel: Annotated[int, typer.Option("--channel", min=0, help="The channel shown.")] = 0,
    slices: Annotated[int, typer.Option("--slices", min=1, help="Slices of a volume, at most.")] = 4,
    workers: WorkersOption = None,
) -> None:
    """Draw every training case with its label map outlined, to look through: DIR/CASE.png."""
    from segplug.stages.overlays import overlays

    with open_project(ctx, workers) as project:
        drawn = overlays(project, dataset, output, predictions=predictions, channel=channel, slices=slices)
    say(f"{len(drawn)} pictures in {output}")


@app.command()
def convert(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder or file to convert; it is only read.")],
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="DATASET", help="Name (Dataset005_X), id or path of the new data set. [default: of TaskXXX_NAME]"
        ),
    ] = None,
    converter: Annotated[
        str | None,
        typer.Option("--from", help="msd, nnunet-v1, folder, bids, or a plugin's. [default: what recognises SOURCE]"),
    ] = None,
    images: Annotated[
        str | None, typer.Option("--images", help="folder: pattern of images, as 'scans/{case}_{channel}.nii.gz'.")
    ] = None,
    masks: Annotated[
        str | None, typer.Option("--masks", help="folder: pattern of masks, as 'segs/{case}.nii.gz' or '..{label}..'.")
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option("--channel", help="folder, bids: VALUE or VALUE=NAME of a channel, in order; repeated."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="folder, bids: NAME=VALUE[,VALUE] of a label, in order; repeated."),
    ] = None,
    overlap: Annotated[
        bool, typer.Option("--overlap", help="folder: where masks overlap, the later --label wins.")
    ] = False,
    unlabelled: Annotated[
        str | None, typer.Option("--unlabelled", help="folder, bids: images without mask: error, skip or test.")
    ] = None,
    derivative: Annotated[str | None, typer.Option("--derivative", help="bids: folder below derivatives.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="bids: ENTITY-VALUE of the files to take, where there are several; repeated."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of a plugin's converter; value in JSON, or a word.")
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Hard links to files that stay as they are, instead of copies.")
    ] = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Do not check the result.")] = False,
    workers: WorkersOption = None,
) -> None:
    """Make a raw data set out of another layout: Decathlon, nnU-Net v1, images and masks, BIDS.

    The new data set appears when it is complete. conversion.json in it says what each file was made from.
    """
    from segplug.stages.convert import convert as convert_stage

    given = {
        "images": images,
        "masks": masks,
        "channel": channel,
        "label": label,
        "overlap": overlap,
        "unlabelled": unlabelled,
        "derivative": derivative,
        "where": where,
    }
    options = {name: value for name, value in given.items() if value} | _set_options(set_ or ())
    with open_project(ctx, workers) as project:
        made = convert_stage(
            project, source, dataset, converter=converter, options=options, link=link, check=not no_verify
        )
    if made.recognised_by:
        say(f"taken for {made.converter}, by {made.recognised_by}")
    for note in made.notes:
        say(note)
    typer.echo(f"written: {made.folder}")
    if made.verification is not None:
        _report(made.verification)


@app.command()
def split(
    ctx: typer.Context,
    dataset: DatasetArgument,
    test: Annotated[
        float | None, typer.Option("--test", help="Share of the cases for testing (0.2), or their number (10).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the drawing.")] = 12345,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            help="Keep cases together, as those of a patient: a regular expression on names, or FILE.csv:COLUMN.",
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Make a new data set (name, id or path) and leave this as it is.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="With --to: hard links instead of copies.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Move the test cases back.")] = False,
) -> None:
    """Set training cases aside for testing: from imagesTr and labelsTr to imagesTs and labelsTs.

    test_split.json in the data set says which, and --undo moves them back. The folds of a cross-validation are
    another thing: 'segplug splits'.
    """
    from segplug.errors import UsageError
    from segplug.stages.split_dataset import split_dataset, undo_split

    if undo == (test is not None):
        raise UsageError("dataset split: expected --test or --undo, one of them")
    with open_project(ctx, 0) as project:
        if test is None:
            made = undo_split(project, dataset)
        else:
            made = split_dataset(project, dataset, test, seed=seed, group=group, to=to, link=link)
    of = f" of {len({made.groups[c] for c in made.test})} groups" if made.groups else ""
    typer.echo(f"{made.folder.name}: {len(made.training)} training cases, {len(made.test)} test cases{of}")
    for case in made.test:
        typer.echo(case)


def _set_options(given: Sequence[str]) -> dict[str, Any]:
    from segplug.errors import UsageError

    options: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--set {text}: expected KEY=VALUE")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


def _report(verification: Verification, output: Format = Format.TABLE) -> None:
    """Show what verifying found; errors make the exit code 1."""
    if output is Format.JSON:
        _show_json(verification.findings)
    else:
        if verification.findings:
            _show(verification.findings)
        typer.echo(_summary(verification))
    if not verification.ok:
        raise typer.Exit(1)


def _show_json(findings: Sequence[Finding]) -> None:
    typer.echo(json.dumps([asdict(f) for f in findings], indent=2, default=str))


def _show(findings: Sequence[Finding]) -> None:
    """A table in a terminal, else one line a finding, never folded."""
    if not sys.stdout.isatty():
        for finding in findings:
            typer.echo(str(finding))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=True)
    table.add_column("", no_wrap=True)
    table.add_column("case", overflow="fold")
    table.add_column("problem", overflow="fold")
    for f in findings:
        text = Text.assemble((f.kind, "bold"), "" if f.file is None else f"\n{f.file}")
        text.append(f"\nfound     {f.found}\nexpected  {f.expected}\n{f.remedy}")
        table.add_row(Text(f.severity, style="red" if f.is_error else "yellow"), Text(f.case), text)
    Console().print(table)


def _summary(verification: Verification) -> str:
    from segplug.runtime.wording import counted

    found = [
        counted(len(of), what)
        for of, what in ((verification.errors, "error"), (verification.warnings, "warning"))
        if of
    ]
    reader = f" with {verification.reader}" if verification.reader else ""
    read = f"{counted(len(verification.cases), 'case')} read{reader}"
    return f"{verification.folder.name}: {read}: {', '.join(found) or 'no problem'}"
