"""`segplug evaluate`: compare predictions with references."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segplug.cli.shell import Format, FormatOption, WorkersOption, new_app, open_project, say
from segplug.errors import UsageError

if TYPE_CHECKING:
    from segplug.model import DatasetDescription, Evaluation, LabelSet

app = new_app("Compare predictions with references.")


@app.command()
def evaluate(
    ctx: typer.Context,
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="Folder of reference label maps.")],
    prediction: Annotated[
        Path, typer.Argument(metavar="PREDICTION", help="Folder of predicted label maps of the same names.")
    ],
    dataset_json: Annotated[
        Path | None,
        typer.Option("--dataset-json", help="dataset.json [default: the one beside the predictions or references]."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--labels", "-l", help="Instead: labels to score, as 1 or 1,2,3; 1+2 is a region of both."),
    ] = None,
    ignore: Annotated[int | None, typer.Option("--ignore", help="With --labels: label of voxels not to count.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", help="Further metric: NAME or NAME,option=VALUE,..., as surface_dice,tolerance=2 (repeatable)."
        ),
    ] = None,
    file_ending: Annotated[str | None, typer.Option(help="Of both folders, if not dataset.json's.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="[default: summary.json in PREDICTION]")] = None,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Leave out cases without prediction.")] = False,
    workers: WorkersOption = None,
    table: FormatOption = Format.TABLE,
) -> None:
    """Score predicted label maps against references: Dice, IoU, voxel counts and any further metric.

    Prints Dice per case and class and writes nnU-Net's summary.json.
    """
    from segplug.cli.evaluation_table import show_evaluation
    from segplug.model import LabelSet
    from segplug.runtime.evaluation import SUMMARY
    from segplug.stages.evaluate import evaluate as evaluate_stage

    if labels and dataset_json is not None:
        raise UsageError("give either --dataset-json or --labels")
    if ignore is not None and not labels:
        raise UsageError("--ignore goes with --labels; dataset.json names its own ignore label")
    dataset = parse_labels(labels, ignore) if labels else _description(dataset_json, reference, prediction)
    with open_project(ctx, workers) as project:
        evaluation = evaluate_stage(
            project,
            reference,
            prediction,
            dataset,
            metrics=metric or (),
            allow_missing=allow_missing,
            file_ending=file_ending,
            output=output,
        )
    label_set = dataset if isinstance(dataset, LabelSet) else dataset.labels
    show_evaluation(evaluation, label_set, table)
    for warning in _warnings(evaluation, label_set):
        say(f"warning: {warning}")
    say(f"written: {output or prediction / SUMMARY}")


def _warnings(evaluation: Evaluation, labels: LabelSet) -> Iterator[str]:
    """What a reader of the numbers has to know."""
    from segplug.cli.evaluation_table import named_class
    from segplug.runtime.wording import counted

    if evaluation.missing:
        total = len(evaluation.missing) + len(evaluation.cases)
        listed = ", ".join(evaluation.missing)
        yield f"{len(evaluation.missing)} of {total} cases have no prediction and are not scored: {listed}"
    if evaluation.unexpected:
        yield f"predictions without a reference, not scored: {', '.join(evaluation.unexpected)}"
    for case in evaluation.cases:
        if case.unknown_labels:
            found = ", ".join(f"{label} ({counted(n, 'voxel')})" for label, n in case.unknown_labels.items())
            yield f"{case.name}: the prediction has labels that dataset.json does not have, not scored: {found}"
    if evaluation.absent:
        named = ", ".join(named_class(labels, target) for target in evaluation.absent)
        yield f"in no reference and no prediction, so without a score: {named}"


def parse_labels(texts: list[str], ignore: int | None = None) -> LabelSet:
    """Labels from the command line: `1`, `1,2`, and `1+2` for a region.

    Raises:
        UsageError: a part is not a positive number.
    """
    from segplug.model import LabelSet

    values: dict[str, int | tuple[int, ...]] = {"background": 0}
    for part in (part.strip() for text in texts for part in text.split(",")):
        numbers = [int(n) if n.strip().isdecimal() else 0 for n in part.split("+")]
        if 0 in numbers:
            raise UsageError(f"--labels {part!r}: expected a label above 0, or a region of several as 1+2")
        values[part] = numbers[0] if len(numbers) == 1 else tuple(numbers)
    if ignore is not None:
        if ignore in {n for v in values.values() for n in (v if isinstance(v, tuple) else (v,))}:
            raise UsageError(f"--ignore {ignore}: expected a label that is not among those to score, nor 0")
        values["ignore"] = ignore
    return LabelSet(values)


def _description(dataset_json: Path | None, reference: Path, prediction: Path) -> DatasetDescription:
    from segplug.runtime.files import read_json
    from segplug.runtime.raw_dataset import parse_description

    places = (prediction / "dataset.json", reference / "dataset.json", reference.resolve().parent / "dataset.json")
    file = dataset_json or next((place for place in places if place.is_file()), None)
    if file is None:
        listed = ", ".join(map(str, places))
        raise UsageError(
            f"what the labels mean is not known: give --dataset-json or --labels (there is none of {listed})"
        )
    return parse_description(read_json(file), file.resolve().parent.name, file)
