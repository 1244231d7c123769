"""The `segplug` command: a table of commands, each imported only when it is called.

Root help imports neither a command's module nor any plugin; commands of plugins are listed from their metadata.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

import segplug
from segplug.cli.plugin_commands import blocking, command_points, described, load_command
from segplug.cli.processes import rank_and_count
from segplug.cli.settings import Roots, read_settings
from segplug.cli.shell import ARGUMENTS
from segplug.errors import SegplugError, UsageError

COMMANDS = {
    "quickstart": "The whole path on a bundled real sample, in minutes.",
    "dataset": "Check, make and divide raw data sets.",
    "fingerprint": "Measure a data set: shapes, spacings, intensities.",
    "plan": "Decide networks, patch sizes and preprocessing.",
    "preprocess": "Crop, normalise and resample every case.",
    "prepare": "Verify, fingerprint, plan and preprocess in one go.",
    "splits": "Divide the training cases into folds.",
    "train": "Train one fold of one configuration.",
    "predict": "Segment images with a trained model.",
    "evaluate": "Compare predictions with references.",
    "ensemble": "Average the probabilities of several models.",
    "postprocess": "Decide on clean-up, and apply it.",
    "select": "Find the best model or pair of models by cross-validation.",
    "model": "Share trained models.",
    "report": "One page about a data set and its models.",
    "run": "All of it, resumable.",
    "bench": "How fast it is on this machine.",
    "plugins": "What is installed, what is in force, and why something is not.",
}
"""Built-in commands in the order of the help; each is `app` of the module of its name in this package."""

INTERRUPTED = 130


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are called."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = tuple(args)
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS, *plugin_commands()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS:
            app = import_module(f"segplug.cli.{cmd_name.replace('-', '_')}").app
        elif cmd_name in plugin_commands():
            app = load_command(cmd_name, plugin_commands()[cmd_name], _blocked(ctx))
        else:
            return None
        command = get_command(app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, rows in (("Commands", COMMANDS), ("Commands of plugins", _plugin_help(ctx))):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(list(rows.items()))


def plugin_commands() -> dict[str, list[Any]]:
    """Entry points of commands by name; a built-in command's name is never taken over."""
    found: dict[str, list[Any]] = {}
    for point in command_points():
        if point.name not in COMMANDS:
            found.setdefault(point.name, []).append(point)
    return found


def _blocked(ctx: Any) -> tuple[str, ...]:
    """Names of blocked plugins; commands are looked up before `root` has put its options into the context."""
    file = ctx.params.get("settings")
    return read_settings(Roots(settings=Path(file) if file else None)).block


def _plugin_help(ctx: Any) -> dict[str, str]:
    points = plugin_commands()
    try:
        block = _blocked(ctx) if points else ()
    except UsageError:  # help is there whatever the settings are
        block = ()
    rows = {}
    for name, of in points.items():
        note = " (blocked)" if all(blocking(point, block) for point in of) else ""
        rows[name] = f"from {described(of)}{note}"
    return rows


app = typer.Typer(
    cls=LazyGroup,
    help="Self-configuring segmentation of 2D and 3D images, as a plugin framework.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"segplug {segplug.__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    raw: Annotated[Path | None, typer.Option(help="Folder of raw data sets (nnUNet_raw).")] = None,
    preprocessed: Annotated[
        Path | None, typer.Option(help="Folder of preprocessed data (nnUNet_preprocessed).")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of trained models (nnUNet_results).")] = None,
    settings: Annotated[Path | None, typer.Option(help="Settings file [default: segplug.toml here or above].")] = None,
    executor: Annotated[str | None, typer.Option(help="Where work on cases is done [default: local].")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback for every error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None:
    ctx.obj = Roots(raw, preprocessed, results, settings, executor)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit code 0: fine, 1: failed, 2: wrong usage.

    What a user can mend is told in one message, as is an interrupt (130); anything else is a bug of ours and keeps its
    traceback.
    """
    as_program = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    # threads that spin while they wait keep other processes from the cores: two trainings on the same cores then take
    # ten times as long. Read once, when torch loads OpenMP
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # matrix products on a GPU with the same bits each time, where that is asked for
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        app(args=arguments, prog_name="segplug")
    except BrokenPipeError:  # `segplug ... | head`
        sys.stderr.close()
        raise SystemExit(1) from None
    except BaseException as error:
        told = _told(error)
        if told is None or ("--debug" in arguments and not isinstance(error, SystemExit)):
            raise
        text, code = _of_process(error, *told)
        if text:
            typer.echo(text, err=True)
        raise SystemExit(code) from None
    finally:
        if as_program:  # all is done; what libraries do at exit must not be interrupted into a traceback
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _of_process(error: BaseException, text: str, code: int) -> tuple[str, int]:
    """What one of several processes says: who it is, and nothing that another one says already."""
    rank, count = rank_and_count()
    if count == 1:
        return text, code
    silent = getattr(error, "told_elsewhere", False) or code == INTERRUPTED  # what started them tells of that
    return "" if silent else f"process {rank} of {count}: {text}" if rank else text, code


def _told(error: BaseException) -> tuple[str, int] | None:
    """What to tell of an error that is no bug, and the exit code."""
    # typer turns an interrupt into an exit and says nothing
    if _was_interrupted(error) or (isinstance(error, SystemExit) and error.code == INTERRUPTED):
        return "interrupted; what is finished is kept, call again to go on", INTERRUPTED
    if isinstance(error, SegplugError):
        return f"{'usage error' if isinstance(error, UsageError) else 'error'}: {error}", error.exit_code
    text = _out_of_resources(error) if isinstance(error, (OSError, MemoryError)) else None
    return None if text is None else (f"error: {text}", 1)


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether it all began with Ctrl-C: cleaning up after one may fail in a library that it caught half imported."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _out_of_resources(error: OSError | MemoryError) -> str | None:
    """What a user can mend about the machine: a full disk, a folder without rights; None for anything else."""
    if isinstance(error, MemoryError):
        return "memory ran out. Free some, or use fewer --workers"
    if error.filename is None or error.strerror is None:
        return "no space left on the disk. Make room and call again" if error.errno == errno.ENOSPC else None
    return f"{error.filename}: {error.strerror}. Check the path, its rights and the disk (--debug tells more)"
