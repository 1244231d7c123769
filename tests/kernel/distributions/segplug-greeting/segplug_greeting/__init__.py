"""Adds a command, and claims the name of a built-in one. Imports torch, so that help that imports it is found out."""

from __future__ import annotations

import torch
import typer

app = typer.Typer(help="Greets.")


@app.command()
def greet(name: str) -> None:
    """Greet somebody."""
    typer.echo(f"hello {name}, {torch.zeros(2).numel()} times")
