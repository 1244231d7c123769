"""`segplug dask`: trainings and predictions as tasks of a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segplug.errors import DataError, PluginError, UsageError

if TYPE_CHECKING:
    from segplug import Project
    from segplug.model import Plan
    from segplug_dask.commands_there import Place
    from segplug_dask.executor import DaskExecutor
    from segplug_dask.graph import Done, Node

NAME = "dask"
"""Of the executor, whose options [executors.dask] in segplug.toml has."""

app = typer.Typer(
    help="Train every configuration and fold, and predict, on the workers of dask.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Workers to start [default: cluster_workers, else one per core].")
]


@app.command()
def train(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Id (4), name (Dataset004_X) or path.")],
    configuration: Annotated[
        list[str] | None, typer.Option("--configuration", "-c", help="Repeat for several. [default: all]")
    ] = None,
    fold: Annotated[list[str] | None, typer.Option("--fold", "-f", help="Repeat for several. [default: all]")] = None,
    planner: Annotated[
        str | None, typer.Option("--planner", help="Planner [default: plans that are there, else default].")
    ] = None,
    plans_name: Annotated[str | None, typer.Option("--plans-name", "-p", help="Name of the plans.")] = None,
    trainer: Annotated[
        str | None, typer.Option("--trainer", help="Trainer [default: the plans', else nnunet].")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the trainer (repeat).")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Number of epochs.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of all randomness [default: 0].")] = None,
    loaders: Annotated[
        int | None, typer.Option("--loaders", min=0, help="Loader processes of each training [default: train's].")
    ] = None,
    workers: WorkersOption = None,
) -> None:
    """Verify, fingerprint, plan and preprocess, then train every configuration and fold, and select the best.

    Cases are tasks of their own until all are preprocessed; then each fold of each configuration is one, which a later
    stage of a cascade waits for. Called again, it goes on: what is finished is kept. A fold that fails costs those that
    need it; the others are trained to the end, and the exit code is 1.
    """
    from segplug_dask.graph import run_graph, training_graph

    with _executor(ctx, workers) as (project, executor):
        plan = _prepared(project, dataset, planner, plans_name, configuration)
        every_fold = _folds(project, dataset, plan)
        wanted = list(configuration or plan.configurations)
        given: dict[str, object] = {
            "--trainer": trainer,
            "--epochs": epochs,
            "--device": device,
            "--precision": precision,
            "--seed": seed,
            "--workers": loaders,
        }
        options = ["--plans-name", plan.plans_name, "--continue"]
        options += [word for name, value in given.items() if value is not None for word in (name, str(value))]
        options += [word for setting in set_ or () for word in ("--set", setting)]
        if not fold and len(wanted) > 1:
            options.append("--save-probabilities")
        previous = {name: stage.previous_stage for name, stage in plan.configurations.items()}
        nodes = training_graph(plan.dataset_name, previous, wanted, fold or every_fold, every_fold, options)
        with project.stage("train on dask", plan.dataset_name, len(nodes)):
            done = run_graph(executor, nodes, _place(ctx, project), _teller(project, "train on dask", len(nodes)))
        for node in nodes:
            if node.name in done.printed:
                typer.echo(f"{node.name}: {done.printed[node.name].strip()}")
        _raise_failed(done, nodes, "trainings")
        if not fold:
            _select(project, plan, done)


@app.command()
def predict(
    ctx: typer.Context,
    parts: Annotated[int, typer.Option("--parts", min=1, help="Tasks that the cases are divided into.")],
    arguments: Annotated[
        list[str], typer.Argument(metavar="-- OPTIONS", help="Options of segplug predict, behind two hyphens.")
    ],
    workers: WorkersOption = None,
) -> None:
    """Predict a folder in several tasks: segplug dask predict --parts 8 -- -i IN -o OUT -m MODEL.

    Each is what 'segplug predict --part K/N --continue' does. A part whose worker dies goes on elsewhere with the cases
    that are missing.
    """
    from segplug_dask.graph import Node, run_graph

    if "--part" in arguments:
        raise UsageError("--part: the parts are made here; say --parts N before the two hyphens")
    more = () if "--continue" in arguments else ("--continue",)
    with _executor(ctx, workers) as (project, executor):
        names = [f"{k}/{parts}" for k in range(1, parts + 1)]
        nodes = [Node(f"part {name}", ("predict", *arguments, *more, "--part", name)) for name in names]
        with project.stage("predict on dask", "", parts):
            done = run_graph(executor, nodes, _place(ctx, project), _teller(project, "predict on dask", parts))
        _raise_failed(done, nodes, "parts")
        # the same call for all: it finds every case there, and says what one call would have said
        whole = Node("all", ("predict", *arguments, *more))
        done = run_graph(executor, [whole], _place(ctx, project), lambda name, why: None)
        _raise_failed(done, [whole], "calls")
    typer.echo(done.printed["all"].strip())


@app.command("job-script")
def job_script(ctx: typer.Context) -> None:
    """Print the script that would be sent to SLURM, PBS or LSF for one job of workers. Nothing is sent."""
    with _executor(ctx, 1) as (_, executor):
        typer.echo(executor.job_script())


@contextmanager
def _executor(ctx: typer.Context, workers: int | None) -> Iterator[tuple[Project, DaskExecutor]]:
    """The project whose cases are worked on by dask, and its executor."""
    from segplug import project_of_command
    from segplug_dask.executor import DaskExecutor

    with project_of_command(ctx, workers) as plain, plain.with_executor(NAME) as project:
        executor = project.executor
        if not isinstance(executor, DaskExecutor):
            raise PluginError(
                f"executors: {NAME!r} is {type(executor).__name__}, not that of segplug-dask; remove its pin"
            )
        yield project, executor


def _place(ctx: typer.Context, project: Project) -> Place:
    from segplug_dask.commands_there import Place

    workspace = project.workspace
    folders = {"raw": workspace.raw, "preprocessed": workspace.preprocessed, "results": workspace.results}
    options = [
        word for name, path in folders.items() if path is not None for word in (f"--{name}", str(path.resolve()))
    ]
    settings = ctx.find_root().params.get("settings")
    if settings is not None:
        options += ["--settings", str(Path(settings).resolve())]
    return Place(str(Path.cwd()), (*options, "--executor", "local"))


def _prepared(
    project: Project, dataset: str, planner: str | None, plans_name: str | None, configurations: list[str] | None
) -> Plan:
    """The plan, its data preprocessed by the workers."""
    import segplug

    return segplug.prepare(project, dataset, planner=planner, plans_name=plans_name, configurations=configurations).plan


def _folds(project: Project, dataset: str, plan: Plan) -> list[str]:
    """Numbers of the folds, which are made if there are none."""
    import segplug

    file = project.workspace.splits_file(plan.dataset_name)
    if not file.is_file():
        segplug.split_folds(project, dataset)
    return [str(number) for number in range(len(json.loads(file.read_text())))]


def _select(project: Project, plan: Plan, done: Done) -> None:
    """Compare what was trained; the folders are told by the trainings."""
    import segplug

    folders = [Path(text.strip().splitlines()[-1].partition(": mean Dice")[0]) for text in done.printed.values()]
    models = [folder.parent.name.split("__") for folder in folders]
    chosen = segplug.select(
        project,
        plan.dataset_name,
        configurations=list(dict.fromkeys(model[2] for model in models)),
        plans_names=[plan.plans_name],
        trainers=list(dict.fromkeys(model[0] for model in models)),
    )
    for candidate in chosen.candidates:
        best = " (best)" if candidate is chosen.best else ""
        typer.echo(f"{' + '.join(map(str, candidate.members))}: mean Dice {candidate.mean_dice:.4f}{best}")


def _teller(project: Project, stage: str, total: int) -> Callable[[str, str], None]:
    count = iter(range(1, total + 1))

    def tell(name: str, why: str) -> None:
        project.progress(stage, f"{name} FAILED" if why else name, next(count), total)

    return tell


def _raise_failed(done: Done, nodes: Sequence[Node], what: str) -> None:
    if done.failed:
        lines = "\n".join(f"  {name}: {why}" for name, why in done.failed.items())
        raise DataError(f"{len(done.failed)} of {len(nodes)} {what} failed:\n{lines}\nCall again to go on with these")
