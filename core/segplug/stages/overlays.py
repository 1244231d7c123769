"""Pictures of every training case of a data set, its label map outlined, to look through before anything is trained."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segplug.errors import DataError, UsageError
from segplug.model import Case, DatasetDescription
from segplug.protocols import Reader
from segplug.runtime.case_reading import read_image, read_labels
from segplug.runtime.case_work import map_cases
from segplug.runtime.overlay import write_overlay
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import choose_reader, load_dataset

STAGE = "overlays"


def overlays(
    project: Project,
    dataset: str | int | Path,
    output: Path,
    *,
    predictions: Path | None = None,
    channel: int = 0,
    slices: int = 4,
) -> tuple[Path, ...]:
    """Write `output/CASE.png` for every training case.

    Args:
        dataset: id, name or path of a raw data set.
        output: folder, made if missing; pictures of the same names are written over.
        predictions: folder of predicted label maps, to show too; cases without one are left out.
        channel: the channel shown.
        slices: how many of a volume, at most.

    Returns:
        The pictures.

    Raises:
        UsageError: no such data set, channel or folder.
        DataError: the data set is not right, or files of cases cannot be read: they are listed, and all others drawn.
    """
    raw = load_dataset(project.workspace.raw_folder(dataset))
    description = raw.description
    if not 0 <= channel < description.num_channels:
        raise UsageError(f"channel {channel}: {raw.name} has channels 0 to {description.num_channels - 1}")
    if slices < 1:
        raise UsageError(f"{slices} slices; expected 1 or more")
    if predictions is not None and not predictions.is_dir():
        raise UsageError(f"{predictions}: no such folder; expected one with predicted label maps")
    cases = {
        name: case
        for name, case in raw.cases.items()
        if predictions is None or (predictions / f"{name}{description.file_ending}").exists()
    }
    if not cases:
        raise DataError(f"{predictions}: no label map of a training case of {raw.name}")
    reader: Reader = project.kernel.registry.build("readers", choose_reader(raw, project.kernel))
    work = partial(
        _draw,
        reader=reader,
        description=description,
        output=output,
        predictions=predictions,
        channel=channel,
        slices=slices,
    )
    drawn = map_cases(project, STAGE, f"{raw.name} -> {output}", work, cases, failed="not drawn")
    return tuple(drawn.values())


def _draw(
    case: Case,
    *,
    reader: Reader,
    description: DatasetDescription,
    output: Path,
    predictions: Path | None,
    channel: int,
    slices: int,
) -> Path:
    """Draw one case; runs in a worker."""
    image = read_image(reader, case, description.num_channels)
    maps = {} if case.label is None else {"reference": read_labels(reader, case.label)}
    if predictions is not None:
        maps["prediction"] = read_labels(reader, predictions / f"{case.name}{description.file_ending}")
    for what, found in maps.items():
        if found.shape != image.shape:
            raise DataError(
                f"case {case.name}: {what} of shape {found.shape}, image {image.shape}; expected one shape. Run "
                "`segplug dataset verify` for all that is wrong"
            )
    picture = output / f"{case.name}.png"
    write_overlay(picture, image, maps, description.labels, title=case.name, slices=slices, channel=channel)
    return picture
