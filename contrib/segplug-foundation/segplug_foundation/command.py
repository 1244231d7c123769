"""`segplug timm`: plans for an encoder, its weights from a file, and which encoders there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from segplug.errors import UsageError

app = typer.Typer(
    help="U-Nets on encoders of timm: plan them, and take weights from a local file.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="Id (4), name (Dataset004_X) or path.")]
EncoderOption = Annotated[str, typer.Option("--encoder", help="A model of timm, such as convnext_tiny.")]


@app.command()
def plan(
    ctx: typer.Context,
    dataset: DatasetArgument,
    encoder: EncoderOption = "resnet18",
    layer_decay: Annotated[
        float,
        typer.Option(
            "--layer-decay", help="Factor of the learning rate from each stage of the encoder to the one before."
        ),
    ] = 1.0,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="An argument of timm's model (repeat): drop_path_rate=0.1."),
    ] = None,
    memory_gb: Annotated[float | None, typer.Option("--memory-gb", help="GPU memory to fill. [default: 8]")] = None,
    plans_name: Annotated[
        str | None, typer.Option("--plans-name", "-p", help="[default: segplugTimmPlans_ENCODER]")
    ] = None,
) -> None:
    """Plan the 2d configuration of a data set with an encoder of your choice, by the planner timm_unet."""
    from segplug import ComponentRef, project_of_command
    from segplug import plan as make_plan
    from segplug_foundation import NAME
    from segplug_foundation.planner import NO_3D

    options = {"encoder": encoder, "layer_decay": layer_decay, "encoder_options": _values(option or ())}
    with project_of_command(ctx, 0) as project:
        made = make_plan(
            project, dataset, planner=ComponentRef(NAME, options), memory_gb=memory_gb, plans_name=plans_name
        )
    flat = made.configurations["2d"]
    typer.echo(f"{made.plans_name}: 2d, patch {list(flat.patch_size)}, batch {flat.batch_size}")
    recipe = made.recipe("2d")
    factors = {} if recipe is None else recipe.options.get("lr_factors", {})
    for part, factor in factors.items():
        typer.echo(f"  learning rate of {part}: x {factor:g}")
    if made.segplug_extra.get("note") == NO_3D:
        typer.echo(NO_3D, err=True)


@app.command()
def weights(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Weights by timm's names: safetensors, or a zip of torch.")],
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint to write, for train --pretrained.")],
    plans_name: Annotated[str, typer.Option("--plans-name", "-p", help="Plans that have the encoder.")],
) -> None:
    """Fit the weights of a local file to the encoder of a plan, its channels and patch. Nothing is downloaded."""
    from segplug import project_of_command
    from segplug_foundation.weights import encoder_of_plans, fit, write_checkpoint

    with project_of_command(ctx, 0) as project:
        name = project.workspace.dataset_name(dataset)
        plans_file = project.workspace.plans_file(name, plans_name)
        plans, description = _read(plans_file), _read(plans_file.with_name("dataset.json"))
        encoder, options, patch = encoder_of_plans(plans, plans_file)
        channels = len(description["channel_names"])
        fitted = fit(file, encoder, channels, patch, options)
        write_checkpoint(fitted, file, encoder, channels, out)
    unused = f", {len(fitted.unused)} not used" if fitted.unused else ""
    typer.echo(f"{len(fitted.weights)} weights of {encoder} from {file} (sha256 {fitted.digest}){unused}")
    if fitted.stem:
        typer.echo(fitted.stem)
    typer.echo(f"begin with them: segplug train {dataset} 2d 0 -p {plans_name} --pretrained {out}")


@app.command()
def encoders(
    pattern: Annotated[str, typer.Argument(help="Part of the names, with * for anything.")] = "*",
    details: Annotated[
        bool, typer.Option("--details", help="What each gives to a decoder (seconds per model).")
    ] = False,
) -> None:
    """Models of timm by name; not all of them can be encoders, as --details tells."""
    from segplug_foundation.timm_library import timm

    names = timm().list_models(pattern)
    if not names:
        raise UsageError(f"timm {timm().__version__} has no model {pattern!r}")
    for name in names:
        typer.echo(f"{name}\t{_details(name)}" if details else name)


def _details(name: str) -> str:
    """Channels by resolution, or why there are none."""
    import torch

    from segplug.errors import DataError
    from segplug_foundation.encoders import build_encoder, features_of

    try:
        with torch.device("meta"):
            channels = features_of(build_encoder(name, 3, (224, 224)), name).channels
    except DataError as error:
        return f"cannot be used: {error}"
    return ", ".join(f"{count} at 1/{resolution}" for resolution, count in channels.items())


def _values(given: Any) -> dict[str, Any]:
    """KEY=VALUE with JSON values; what is no JSON is a text.

    Raises:
        UsageError: there is no key.
    """
    found = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise UsageError(f"--option {each}: expected KEY=VALUE, such as drop_path_rate=0.1")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _read(file: Path) -> Any:
    if not file.is_file():
        raise UsageError(f"{file}: no such file. Plan first: segplug timm plan DATASET --encoder NAME")
    return json.loads(file.read_text(encoding="utf-8"))
