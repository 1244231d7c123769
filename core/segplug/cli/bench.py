"""`segplug bench`: how fast training, prediction and preprocessing are on this machine and data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segplug.cli.shell import DatasetArgument, PlansNameOption, WorkersOption, new_app, open_project, say, settings_of

if TYPE_CHECKING:
    from segplug.runtime.project import Project
    from segplug.stages.bench import BenchResult

app = new_app("How fast training, prediction and preprocessing are here.", group=True)

ConfigurationArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="Configuration of the plans, such as 2d or 3d_fullres.")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
PrecisionOption = Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")]
RepetitionsOption = Annotated[int, typer.Option("--repetitions", min=1, help="Counted ones, to take medians of.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="File for the result: figures, settings, machine, versions (JSON).")
]
AgainstOption = Annotated[
    Path | None, typer.Option("--against", help="Compare with this earlier result.", exists=True, dir_okay=False)
]


@app.command()
def train(
    ctx: typer.Context,
    dataset: DatasetArgument,
    configuration: ConfigurationArgument,
    plans_name: PlansNameOption = None,
    trainer: Annotated[
        str | None, typer.Option("--trainer", "-t", help="Trainer [default: the plans', else nnunet].")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the trainer, as trainer.batch_size=4 (repeat)."),
    ] = None,
    iterations: Annotated[
        int, typer.Option("--iterations", min=1, help="Of each repetition; nnU-Net's epoch has 250.")
    ] = 10,
    no_data_loading: Annotated[
        bool, typer.Option("--no-data-loading", help="The network alone, on one batch of random numbers.")
    ] = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    repetitions: RepetitionsOption = 5,
    workers: WorkersOption = None,
    out: OutOption = None,
    against: AgainstOption = None,
) -> None:
    """Iterations of a training of fold 0, of which nothing is kept: no validation, checkpoints, logs or plots.

    The data set has to be preprocessed. A first repetition is not counted. nnU-Net's nnUNetTrainerBenchmark_5epochs is
    --iterations 250, its nnUNetTrainerBenchmark_5epochs_noDataLoading is that with --no-data-loading.
    """
    from segplug.stages.bench_train import bench_training

    defaults = settings_of(ctx)

    def measure(project: Project) -> BenchResult:
        return bench_training(
            project,
            dataset,
            configuration,
            repetitions=repetitions,
            iterations=iterations,
            data_loading=not no_data_loading,
            plans_name=plans_name,
            trainer=trainer,
            overrides=set_ or (),
            device=device or defaults.device,
            precision=precision or defaults.precision,
        )

    _run(ctx, workers, measure, out, against)


@app.command()
def predict(
    ctx: typer.Context,
    dataset: DatasetArgument,
    configuration: ConfigurationArgument,
    plans_name: PlansNameOption = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Model folder [default: random weights, nothing is trained].")
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=1, help="How many networks are averaged.")] = 1,
    cases: Annotated[int, typer.Option("--cases", min=1, help="How many training images are predicted.")] = 5,
    step_size: Annotated[
        float, typer.Option(min=0.01, max=1, help="Step of the sliding window as a share of the patch.")
    ] = 0.5,
    no_mirroring: Annotated[bool, typer.Option("--no-mirroring", help="Without mirrored versions.")] = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    max_memory: Annotated[float | None, typer.Option("--max-memory", min=0.1, help="GB to stay below.")] = None,
    repetitions: RepetitionsOption = 3,
    workers: WorkersOption = None,
    out: OutOption = None,
    against: AgainstOption = None,
) -> None:
    """Prediction of training images from files to files, with one or several networks.

    The data set has to be planned; nothing is kept. A first repetition of one image is not counted.
    """
    from segplug.protocols import PredictionSettings
    from segplug.stages.bench_predict import bench_prediction

    defaults = settings_of(ctx)
    settings = PredictionSettings(
        step_size=step_size,
        mirroring=not no_mirroring,
        device=device or defaults.device,
        precision=precision or defaults.precision,
        max_memory_gb=max_memory,
    )

    def measure(project: Project) -> BenchResult:
        return bench_prediction(
            project,
            dataset,
            configuration,
            repetitions=repetitions,
            cases=cases,
            folds=folds,
            model=model,
            plans_name=plans_name,
            settings=settings,
        )

    _run(ctx, workers, measure, out, against)


@app.command()
def preprocess(
    ctx: typer.Context,
    dataset: DatasetArgument,
    configuration: ConfigurationArgument,
    plans_name: PlansNameOption = None,
    repetitions: RepetitionsOption = 3,
    workers: WorkersOption = None,
    out: OutOption = None,
    against: AgainstOption = None,
) -> None:
    """Preprocessing of all cases for one configuration, with the memory of all processes together.

    The data set has to be planned; its own preprocessed cases are not touched.
    """
    from segplug.stages.bench_preprocess import bench_preprocessing

    def measure(project: Project) -> BenchResult:
        return bench_preprocessing(project, dataset, configuration, repetitions=repetitions, plans_name=plans_name)

    _run(ctx, workers, measure, out, against)


def _run(
    ctx: typer.Context,
    workers: int | None,
    measure: Callable[[Project], BenchResult],
    out: Path | None,
    against: Path | None,
) -> None:
    from segplug.stages.bench import SECONDS, compare, read_result

    before = None if against is None else read_result(against)
    with open_project(ctx, workers) as project:
        result = measure(project)
        if before is not None and against is not None:
            result = compare(result, before, against)
    if out is not None:
        result.write(out)
    machine = result.machine
    typer.echo(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB {', '.join(machine['gpu'])}".strip()
    )
    told = {name: value for name, value in result.settings.items() if value is not None}
    typer.echo(", ".join(f"{name} {value}" for name, value in told.items()))
    count = len(result.repetitions)
    for name, value in result.medians.items():
        spread = sorted(each[name] for each in result.repetitions)
        typer.echo(f"{name:24}{value:12.4g}   median of {count}, {spread[0]:.4g} to {spread[-1]:.4g}")
    if result.compared:
        was = result.compared["medians"][SECONDS]
        typer.echo(f"{result.compared['ratio']:.2f} times as fast as {against} ({was:.4g} s)")
    if out is not None:
        say(f"written: {out}")
