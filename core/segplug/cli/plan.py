"""`segplug plan`: decide networks, patch sizes and preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from segplug.cli.shell import DatasetArgument, Format, FormatOption, new_app, open_project, show
from segplug.errors import UsageError

app = new_app("Decide networks, patch sizes and preprocessing.")


@app.command()
def plan(
    ctx: typer.Context,
    dataset: DatasetArgument,
    planner: Annotated[
        str | None,
        typer.Option(
            "--planner", help="default, resenc_m, resenc_l, resenc_xl, compact, or a plugin's. [default: default]"
        ),
    ] = None,
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", help="GPU memory that training may use. [default: the planner's]")
    ] = None,
    spacing: Annotated[
        list[str] | None,
        typer.Option("--spacing", help="Target spacing of 3d_fullres: z,y,x, or the option three times."),
    ] = None,
    plans_name: Annotated[
        str | None, typer.Option("--plans-name", "-p", help="Name of the plans file. [default: the planner's]")
    ] = None,
    from_dataset: Annotated[
        str | None,
        typer.Option(
            "--from-dataset", help="Take over the plans of this data set, so that its networks can go on here."
        ),
    ] = None,
    from_plans: Annotated[
        str | None, typer.Option("--from-plans", help="Which plans of --from-dataset. [default: nnUNetPlans]")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Plan a data set from its fingerprint and write the plans file, which nnU-Net can read too.

    Configurations added to the file by hand are kept.
    """
    from segplug.stages.move_plans import move_plans
    from segplug.stages.plan import plan as plan_stage

    if from_dataset is None and from_plans is not None:
        raise UsageError("--from-plans names plans of another data set: name that with --from-dataset")
    if from_dataset is not None and (planner is not None or memory_gb is not None or spacing):
        raise UsageError("--from-dataset takes plans over as they are: leave --planner, --memory-gb and --spacing out")
    with open_project(ctx, 0) as project:
        if from_dataset is not None:
            made = move_plans(project, from_dataset, dataset, from_plans=from_plans, plans_name=plans_name)
        else:
            made = plan_stage(
                project,
                dataset,
                planner=planner or "default",
                memory_gb=memory_gb,
                spacing=_spacing(spacing),
                plans_name=plans_name,
            )
    rows = [
        [
            c.name,
            c.batch_size,
            list(c.patch_size),
            [round(s, 6) for s in c.spacing],
            len(_strides(c.architecture.options)) or None,  # not every network has them
        ]
        for c in made.configurations.values()
    ]
    show(["configuration", "batch", "patch size", "spacing", "stages"], rows, output, title=made.plans_name)


def _strides(options: object) -> Sequence[object]:
    found = options.get("strides", ()) if isinstance(options, dict) else ()
    return found if isinstance(found, list) else ()


def _spacing(given: Sequence[str] | None) -> tuple[float, ...] | None:
    """`--spacing 3,1,1` and `--spacing 3 --spacing 1 --spacing 1` mean the same.

    Raises:
        UsageError: not three numbers.
    """
    if not given:
        return None
    parts = [part for text in given for part in text.replace(",", " ").split()]
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise UsageError(f"--spacing {' '.join(given)}: expected three numbers, z,y,x: --spacing 3,1,1")
    return numbers
