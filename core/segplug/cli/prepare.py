"""`segplug prepare`: everything before training."""

from __future__ import annotations

from typing import Annotated

import typer

from segplug.cli.shell import DatasetArgument, MaxMemoryOption, WorkersOption, new_app, open_project

app = new_app("Verify, fingerprint, plan and preprocess in one go.")


@app.command()
def prepare(
    ctx: typer.Context,
    dataset: DatasetArgument,
    configuration: Annotated[
        list[str] | None,
        typer.Option("--configuration", "-c", help="Configuration to prepare; repeat for several. [default: all]"),
    ] = None,
    planner: Annotated[str, typer.Option("--planner", help="Planner.")] = "default",
    memory_gb: Annotated[float | None, typer.Option("--memory-gb", help="GPU memory that training may use.")] = None,
    plans_name: Annotated[
        str | None, typer.Option("--plans-name", "-p", help="Name of the plans file. [default: the planner's]")
    ] = None,
    workers: WorkersOption = None,
    max_memory: MaxMemoryOption = None,
) -> None:
    """Verify, fingerprint, plan and preprocess a data set: nnUNetv2_plan_and_preprocess --verify_dataset_integrity.

    The same as the four commands one after the other, in less time: workers are started once, and each case is read
    once for verification and fingerprint together. What is current is kept.
    """
    with open_project(ctx, workers, None, max_memory) as project:
        project.start_workers("segplug.stages.verify", "segplug.runtime.case_preprocessing", "SimpleITK")

        from segplug.stages.prepare import prepare as prepare_stage

        done = prepare_stage(
            project,
            dataset,
            planner=planner,
            memory_gb=memory_gb,
            plans_name=plans_name,
            configurations=configuration or None,
        )
    typer.echo(f"plans: {done.plan.plans_name}")
    typer.echo(done.preprocessed.summary())
