"""`segplug dataset`: raw data sets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from segplug.cli.shell import DatasetArgument, Format, FormatOption, WorkersOption, new_app, open_project

if TYPE_CHECKING:
    from segplug.runtime.findings import Finding
    from segplug.stages.verify import Verification

app = new_app("Check a raw data set.", group=True)


@app.callback()
def group() -> None:
    """Check a raw data set."""


@app.command()
def verify(
    ctx: typer.Context, dataset: DatasetArgument, workers: WorkersOption = None, output: FormatOption = Format.TABLE
) -> None:
    """Read every file of a raw data set completely and list all that is wrong with it.

    Errors make the exit code 1; warnings alone do not.
    """
    from segplug.stages.verify import verify as verify_stage

    with open_project(ctx, workers) as project:
        verification = verify_stage(project, dataset)
    if output is Format.JSON:
        _show_json(verification.findings)
    else:
        if verification.findings:
            _show(verification.findings)
        typer.echo(_summary(verification))
    if not verification.ok:
        raise typer.Exit(1)


def _show_json(findings: Sequence[Finding]) -> None:
    import json

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
