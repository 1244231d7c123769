"""`segplug model`: share trained models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segplug.cli.shell import DatasetArgument, Format, FormatOption, new_app, open_project, say, several, show

if TYPE_CHECKING:
    from segplug.kernel import Registry
    from segplug.runtime.model_description import ModelsDescription

app = new_app("Share trained models.", group=True)


@app.command("export")
def export(
    ctx: typer.Context,
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip to write.")],
    configuration: Annotated[
        list[str] | None,
        typer.Option(
            "--configuration", "-c", help="Configuration; repeat for several. [default: all that are trained]"
        ),
    ] = None,
    plans_name: Annotated[
        str | None, typer.Option("--plans-name", "-p", help="Plans [default: nnUNetPlans, or the only ones].")
    ] = None,
    trainer: Annotated[
        str | None,
        typer.Option("--trainer", "-t", help="Trainer's folder name [default: nnUNetTrainer, or the only one]."),
    ] = None,
    fold: Annotated[
        list[str] | None,
        typer.Option(
            "--fold",
            "--folds",
            "-f",
            help="Fold; repeat for several, or 0,1,2. [default: all trained ones]",
        ),
    ] = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option("--checkpoint", help="final, best or latest; repeat. [default: final]")
    ] = None,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Pack the label maps of the validations too.")
    ] = False,
    for_inference: Annotated[
        bool, typer.Option("--for-inference", help="Without the optimiser's state: half the size, no --continue.")
    ] = False,
) -> None:
    """Write a zip of models that 'segplug model import' and nnUNetv2_install_pretrained_model_from_zip install.

    With it go a manifest (hashes, versions, plugins) and a model card.
    """
    from segplug.runtime.fold_work import parse_fold
    from segplug.stages.export_model import export_model

    with open_project(ctx, 0) as project:
        done = export_model(
            project,
            dataset,
            output,
            configurations=configuration,
            plans_name=plans_name,
            trainer=trainer,
            folds=None if (named := several(fold)) is None else [parse_fold(f) for f in named],
            checkpoints=checkpoint or ("final",),
            predictions=predictions,
            for_inference=for_inference,
        )
    show_models(done.description, Format.TABLE)
    say(f"written: {done.file} ({done.file.stat().st_size / 1e6:.1f} MB)")


@app.command("import")
def import_(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="A zip, or its address (http or https).")],
    sha256: Annotated[str | None, typer.Option("--sha256", help="Hash that the zip must have.")] = None,
    max_size: Annotated[float, typer.Option("--max-size", help="GB that it may have, also unpacked.")] = 50.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace models of the same names.")] = False,
) -> None:
    """Install models that segplug or nnU-Net exported.

    Nothing in the zip is run: pickles and programs are left out, and checkpoints that hold more than numbers refused.
    """
    from segplug.stages.import_model import import_model

    with open_project(ctx, 0) as project:
        done = import_model(project, source, sha256=sha256, max_gb=max_size, overwrite=overwrite)
    show_models(done.description, Format.TABLE)
    tell_lacking(done.description, project.kernel.registry)
    if done.left_out:
        say(f"left in the zip, as no part of a model: {', '.join(done.left_out)}")
    if not done.checked:
        say("the zip has no hashes of its files (nnU-Net writes none)")
    say(f"installed: {done.folder}")


@app.command("inspect")
def inspect(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="A zip, a model folder, or a data set (id, name, folder of results).")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Tell what models are: data set, plans, folds, metrics, and where their components came from."""
    from segplug.stages.import_model import inspect_model

    with open_project(ctx, 0) as project:
        described = inspect_model(project, source)
    show_models(described, output)
    tell_lacking(described, project.kernel.registry)


def tell_lacking(described: ModelsDescription, registry: Registry) -> None:
    """Say what models came from and is not provided here, or by another plugin, with what to install; each once."""
    from segplug.kernel.provenance import differences

    for text in dict.fromkeys(text for m in described.models for text in differences(m.providers, registry)):
        say(f"not as it was trained: {text}")


def show_models(described: ModelsDescription, output: Format) -> None:
    """Print a description: a table of models, with what holds for all of them above it; or JSON."""
    if output is Format.JSON:
        typer.echo(json.dumps(described.as_json(), indent=2))
        return
    dataset = described.dataset
    labels = ", ".join(
        f"{n} {'+'.join(map(str, v)) if isinstance(v, tuple) else v}" for n, v in dataset.labels.values.items()
    )
    typer.echo(f"{dataset.name}: {', '.join(dataset.channel_names)}; {labels}; {dataset.num_training} training cases")
    rows = [
        [
            str(m.name),
            list(m.folds),
            m.network["class"],
            " x ".join(map(str, m.network["patch_size"])),
            [f"{d:.4f}" for d in m.dice.values()],
            m.crossval.get("mean"),
            sorted({f"{p['distribution']} {p['version']}" for p in m.providers}),
        ]
        for m in described.models
    ]
    columns = ["model", "folds", "network", "patch", "Dice of each fold", "of all folds", "components from"]
    show(columns, rows)
    if described.choice:
        choice = described.choice
        typer.echo(
            f"choice: {' + '.join(choice['members'])}, mean Dice {choice['mean_dice']:.4f}, "
            f"after postprocessing {choice['postprocessed_dice']:.4f}"
        )
