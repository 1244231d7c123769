"""`segplug predict`: segment images with a trained model."""

from __future__ import annotations

from enum import StrEnum
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segplug.cli.shell import PlansNameOption, WorkersOption, new_app, open_project, say, settings_of, several
from segplug.errors import UsageError
from segplug.runtime.parts import WHOLE, Part
from segplug.runtime.planned import DEFAULT_PLANS
from segplug.runtime.trainer_choice import NNUNET_TRAINER
from segplug.runtime.wording import counted

if TYPE_CHECKING:
    from segplug.runtime.workspace import Workspace

app = new_app("Segment images with a trained model.")


class Which(StrEnum):
    """Checkpoints that training writes."""

    FINAL = "final"
    BEST = "best"
    LATEST = "latest"


@app.command()
def predict(
    ctx: typer.Context,
    source: Annotated[Path, typer.Option("--input", "-i", help="Folder of images named CASE_0000.ext.")],
    target: Annotated[Path, typer.Option("--output", "-o", help="Folder for the label maps.")],
    model: Annotated[Path | None, typer.Option("--model", "-m", help="Model folder (Trainer__Plans__Config).")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="Or: data set (id, name) and ...")] = None,
    configuration: Annotated[str | None, typer.Option("--configuration", "-c", help="... configuration.")] = None,
    choice: Annotated[
        bool,
        typer.Option("--choice", help="With -d: what 'segplug select' chose, with its ensemble and postprocessing."),
    ] = False,
    plans_name: PlansNameOption = None,
    trainer: Annotated[
        str | None,
        typer.Option(
            "--trainer", "-t", help="With -d: trainer's folder name [default: nnUNetTrainer, or the only one]."
        ),
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
    step_size: Annotated[float, typer.Option(help="Step of the sliding window as a share of the patch.")] = 0.5,
    no_mirroring: Annotated[bool, typer.Option("--no-mirroring", help="Faster, a little less accurate.")] = False,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Keep class probabilities in CASE.npz.")
    ] = False,
    previous_stage: Annotated[
        Path | None,
        typer.Option(
            help="Cascade: folder with the previous stage's label maps. [default: its model runs by itself]",
            file_okay=False,
        ),
    ] = None,
    keep_previous: Annotated[
        Path | None,
        typer.Option("--keep-previous", help="Cascade: folder to keep the previous stages' label maps in."),
    ] = None,
    continue_: Annotated[bool, typer.Option("--continue", help="Keep what an earlier call finished.")] = False,
    part: Annotated[
        str | None,
        typer.Option("--part", metavar="K/N", help="Only the K-th of N parts of the cases; others may run beside it."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16, fp16, or another of an engine.")] = None,
    checkpoint: Annotated[Which, typer.Option(help="Which checkpoint of each fold.")] = Which.FINAL,
    workers: WorkersOption = None,
    max_memory: Annotated[
        float | None,
        typer.Option("--max-memory", help="GB that the program stays below, with slower work and files on disk."),
    ] = None,
    predictor: Annotated[str, typer.Option(help="Inference engine, a component of kind predictors.")] = "torch",
    allow_provider_change: Annotated[
        bool, typer.Option("--allow-provider-change", help="Accept other plugins than those the model was made with.")
    ] = False,
) -> None:
    """Write a label map for every case in a folder of images, with the geometry of the input.

    Cases that cannot be predicted are named, the others are written, and the exit code is 1.

    With --part 1/4 to 4/4, four calls on as many GPUs or machines write what one would, into one folder. When all have
    ended, the same call with --continue and without --part makes up for what one of them left; evaluate, ensemble and
    postprocess are for afterwards.
    """
    from segplug.protocols import PredictionSettings
    from segplug.stages.predict import predict_folder

    if (model is None) == (dataset is None):
        raise UsageError("say which model: -m MODEL_FOLDER, -d DATASET -c CONFIGURATION, or -d DATASET --choice")
    named = several(fold)
    if choice and (dataset is None or (configuration, plans_name, trainer, fold) != (None, None, None, None)):
        raise UsageError("--choice goes with -d DATASET alone: it names configurations, plans, trainers and folds")
    if choice and checkpoint is not Which.FINAL:
        raise UsageError("--choice: was made with final checkpoints; leave --checkpoint out")
    if choice and (previous_stage, keep_previous) != (None, None):
        option = "--keep-previous" if previous_stage is None else "--previous-stage"
        raise UsageError(f"--choice: predicts the previous stages of its cascades by itself; leave {option} out")
    if model is not None and (configuration, plans_name, trainer) != (None, None, None):
        raise UsageError("-c, -p and -t go with -d DATASET; -m names the model by its folder")
    if previous_stage is not None and keep_previous is not None:
        raise UsageError("--keep-previous is for predictions that --previous-stage does not give: name one of them")
    if not 0 < step_size <= 1:
        raise UsageError(f"--step-size {step_size}: expected more than 0 and at most 1")
    if max_memory is not None and not 0 < max_memory < inf:
        raise UsageError(f"--max-memory {max_memory}: expected more than 0 (GB)")
    divided = WHOLE if part is None else Part.parse(part)
    defaults = settings_of(ctx)
    settings = PredictionSettings(
        step_size=step_size,
        mirroring=not no_mirroring,
        device=device or defaults.device,
        precision=precision or defaults.precision,
        save_probabilities=save_probabilities,
        max_memory_gb=max_memory,
        allow_provider_change=allow_provider_change,
    )
    with open_project(ctx, workers) as project:
        if choice:
            assert dataset is not None
            from segplug.runtime.choice_codec import read_choice
            from segplug.stages.predict_choice import predict_choice

            chosen = read_choice(project.workspace.choice_file(project.workspace.dataset_name(dataset)))
            result = predict_choice(
                project,
                source,
                target,
                chosen,
                settings=settings,
                predictor=predictor,
                continue_=continue_,
                part=divided,
            )
        else:
            if dataset is not None:
                model = model_folder(project.workspace, dataset, trainer, plans_name, configuration)
            assert model is not None
            result = predict_folder(
                project,
                source,
                target,
                model,
                folds=None if named is None else [int(f) if f.isdecimal() else f for f in named],
                checkpoint=checkpoint.value,
                settings=settings,
                predictor=predictor,
                continue_=continue_,
                previous_stage=previous_stage,
                keep_previous=keep_previous,
                part=divided,
            )
    kept = f", {len(result.kept)} kept from before" if result.kept else ""
    if continue_ and not result.kept:
        kept = ", nothing to continue"
    of = "" if divided.whole else f", {divided}"
    say(f"predicted {counted(len(result.predicted), 'case')}{kept}{of}: {result.folder}")


def model_folder(
    workspace: Workspace, dataset: str, trainer: str | None, plans_name: str | None, configuration: str | None
) -> Path:
    """The model folder of a data set.

    Args:
        trainer, plans_name: None for `nnUNetTrainer` and `nnUNetPlans`, or the only ones of which there is such a
            model. (A network that nnU-Net does not have is trained in a folder of another name.)

    Raises:
        UsageError: there is none, or several and trainer or plans were not named: the message lists them; or no
            configuration is named.
    """
    if configuration is None:
        raise UsageError("-d needs -c CONFIGURATION, such as -c 3d_fullres")
    folder = workspace.model_folder(
        workspace.dataset_name(dataset), trainer or NNUNET_TRAINER, plans_name or DEFAULT_PLANS, configuration
    )
    models = sorted(f for f in folder.parent.glob("*__*__*") if f.is_dir()) if folder.parent.is_dir() else []
    if folder in models:
        return folder
    named = trainer, plans_name, configuration
    parts = {f: f.name.split("__") for f in models}
    meant = [f for f, own in parts.items() if all(n in (None, o) for n, o in zip(named, own, strict=False))]
    usual = [f for f in meant if parts[f][0] == NNUNET_TRAINER]
    for found in (usual, meant):
        if len(found) == 1:
            return found[0]
    there = ", ".join(f.name for f in models) or "none"
    raise UsageError(
        f"{folder}: no such model. There are: {there}. Name its plans (-p) and trainer (-t), or train it first"
    )
