"""A command of a plugin. It is imported when it is called; help takes its name from the entry point alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Count the files of a folder by their endings.")


@app.command()
def count(folder: Annotated[Path, typer.Argument(help="Any folder.")]) -> None:
    """Count the files of a folder by their endings."""
    endings = sorted("".join(file.suffixes) for file in folder.iterdir() if file.is_file())
    for ending in dict.fromkeys(endings):
        typer.echo(f"{endings.count(ending)} {ending or 'without ending'}")
