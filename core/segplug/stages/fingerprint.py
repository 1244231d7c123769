"""Measure a data set: shapes, spacings and foreground intensities of its training cases."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.kernel.provenance import record
from segplug.model import Case, ChannelStatistics, Fingerprint, Image, Labels, RawDataset
from segplug.protocols import Reader
from segplug.runtime.case_reading import read_image, read_labels
from segplug.runtime.case_work import each_case, raise_wrong
from segplug.runtime.cropping import nonzero_box, slices
from segplug.runtime.files import file_state, value_hash
from segplug.runtime.fingerprint_codec import read_fingerprint, write_fingerprint
from segplug.runtime.intensities import (
    TOTAL_DRAWS,
    Intensities,
    channel_statistics,
    draw_intensities,
    merge_intensities,
)
from segplug.runtime.measuring_memory import needs_to_measure
from segplug.runtime.preparation_memory import to_measure
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import choose_reader, load_dataset

STAGE = "fingerprint"
MADE_FROM = "made_from"
_VERSION = 1
"""Raised when the same data give another fingerprint, so that old ones are made anew."""


@dataclass(frozen=True)
class CaseMeasurement:
    """What one case adds to the fingerprint."""

    spacing: tuple[float, ...]
    shape_after_crop: tuple[int, ...]
    relative_size: float
    intensities: tuple[Intensities, ...]


def fingerprint(project: Project, dataset: str | int | Path, *, overwrite: bool = False) -> Fingerprint:
    """Measure the training cases and write dataset_fingerprint.json, as nnU-Net does.

    A fingerprint that segplug made from the same files is kept.

    Args:
        dataset: id, name or path of a raw data set.
        overwrite: measure again even so.

    Raises:
        DataError: the data set cannot be read, or has no foreground; every bad case is named.
        UsageError: no such data set.
        PluginError: the reader does not exist.
    """
    raw = load_dataset(project.workspace.raw_folder(dataset))
    reader = choose_reader(raw, project.kernel)
    file = project.workspace.fingerprint_file(raw.name)
    made_from = state_of(project, raw, reader)
    with project.stage(STAGE, raw.name, len(raw.cases)):
        kept = None if overwrite else _kept(file, made_from)
        if kept is not None:
            project.progress(STAGE, "unchanged, kept", len(raw.cases), len(raw.cases))
            return kept
        return _write(project, raw, _measure(project, raw, reader), made_from)


def is_stale(project: Project, raw: RawDataset, made: Fingerprint, reader: str | None = None) -> bool:
    """Whether segplug made this fingerprint from other files than the data set has now. nnU-Net's are never stale.

    Args:
        reader: the data set's, if it has been chosen already.
    """
    made_from = made.extra.get("segplug", {}).get(MADE_FROM)
    if made_from is None:
        return False
    return bool(made_from != state_of(project, raw, reader or choose_reader(raw, project.kernel)))


def measure_case(case: Case, reader: Reader, num_channels: int, draws: int) -> CaseMeasurement:
    """Read and measure one case; what a worker does.

    Args:
        draws: intensities to draw from the foreground of each channel.

    Raises:
        DataError: image and labels cannot be read, do not fit each other, or hold NaN or infinity.
    """
    if case.label is None:
        raise DataError(f"case {case.name}: no label map; expected one for every training case")
    labels = read_labels(reader, case.label)  # first: reading takes twice what is kept, before there is an image
    return measure_arrays(case.name, read_image(reader, case, num_channels), labels, draws)


def measure_arrays(name: str, image: Image, labels: Labels, draws: int) -> CaseMeasurement:
    """Measure one case in memory; see `measure_case`."""
    if image.shape != labels.shape:
        raise DataError(
            f"case {name}: image {image.shape} and labels {labels.shape} differ in shape. "
            "Run `segplug dataset verify` for all that is wrong"
        )
    if not _finite(image.array):
        raise DataError(f"case {name}: NaN or infinite values in the image; expected finite ones. Correct the image")
    box = nonzero_box(image.array)
    inner = slices(box)
    # label > 0 counts, the ignore label too (nnU-Net's rule)
    foreground = labels.array[inner] > 0
    intensities = draw_intensities((channel[inner][foreground] for channel in image.array), draws)
    shape = tuple(stop - start for start, stop in box)
    relative_size = float(np.prod(shape) / np.prod(image.shape))
    return CaseMeasurement(image.spacing, shape, relative_size, tuple(intensities))


class Measuring:
    """The measuring of a data set's cases in progress."""

    def __init__(self, raw: RawDataset) -> None:
        self._raw = raw
        self.draws = int(TOTAL_DRAWS // max(1, len(raw.cases)))
        self._measured: dict[str, CaseMeasurement] = {}
        self._drawn = DrawnIntensities(raw.description.num_channels)

    def add(self, case: str, measurement: CaseMeasurement) -> None:
        """Take the measurement of a case; they may come in any order."""
        self._drawn.add(measurement.intensities)
        self._measured[case] = replace(measurement, intensities=())

    def fingerprint(self) -> Fingerprint:
        """Of all cases.

        Raises:
            DataError: no case has foreground.
        """
        return combine(self._raw.name, [self._measured[case] for case in self._raw.cases], self._drawn)


def keep_measured(project: Project, raw: RawDataset, measuring: Measuring, made_from: str) -> Fingerprint:
    """Write the fingerprint of cases that were measured as they were read for something else.

    Args:
        made_from: what `state_of` was before they were read.

    Raises:
        DataError: no case has foreground.
    """
    with project.stage(STAGE, f"{raw.name} (measured while its cases were verified)"):
        return _write(project, raw, measuring, made_from)


def _finite(array: NDArray[np.float32]) -> bool:
    return all(np.isfinite((channel.min(), channel.max())).all() for channel in array)  # both pass NaN on


def _write(project: Project, raw: RawDataset, measuring: Measuring, made_from: str) -> Fingerprint:
    made = replace(measuring.fingerprint(), extra={"segplug": {MADE_FROM: made_from}})
    write_fingerprint(project.workspace.fingerprint_file(raw.name), made)
    return made


def _measure(project: Project, raw: RawDataset, reader_name: str) -> Measuring:
    measuring = Measuring(raw)
    work = partial(
        measure_case,
        reader=project.kernel.registry.build("readers", reader_name),
        num_channels=raw.description.num_channels,
        draws=measuring.draws,
    )
    taken = partial(to_measure, draws=measuring.draws)
    needs = needs_to_measure(project, reader_name, raw.cases, measuring.draws, taken, "measuring it")
    wrong = each_case(project, STAGE, work, raw.cases, measuring.add, needs=needs)
    raise_wrong(wrong, f"data set {raw.name}: {len(wrong)} of {len(raw.cases)} cases cannot be measured")
    return measuring


def combine(name: str, measured: Sequence[CaseMeasurement], drawn: DrawnIntensities) -> Fingerprint:
    """The fingerprint of cases in their order.

    Args:
        name: the data set's, for messages.
        drawn: the intensities of all cases.

    Raises:
        DataError: no case has foreground.
    """
    return Fingerprint(
        spacings=tuple(m.spacing for m in measured),
        shapes_after_crop=tuple(m.shape_after_crop for m in measured),
        channels=tuple(drawn.statistics(name)),
        median_relative_size_after_cropping=float(np.median([m.relative_size for m in measured])),
    )


class DrawnIntensities:
    """Intensities of the cases so far, per channel, merged now and then so that they stay few."""

    def __init__(self, channels: int) -> None:
        self._parts: list[list[Intensities]] = [[] for _ in range(channels)]
        self._some_empty = False

    def add(self, intensities: tuple[Intensities, ...]) -> None:
        for parts, new in zip(self._parts, intensities, strict=True):
            self._some_empty |= not new.values.size
            parts.append(new)
            if len(parts) >= 32:  # mostly the same values: merging shrinks them
                taken = parts[:]
                parts.clear()
                parts.append(merge_intensities(_emptied(taken)))

    def statistics(self, name: str) -> Iterator[ChannelStatistics]:
        for parts in self._parts:
            merged = merge_intensities(_emptied(parts))
            if not merged.values.size:
                raise DataError(
                    f"data set {name}: no case has foreground (label > 0) inside its nonzero region; expected "
                    "some. Check the label maps: `segplug dataset verify`"
                )
            yield channel_statistics(merged, single_precision=not self._some_empty)


def _emptied(parts: list[Intensities]) -> Iterator[Intensities]:
    """The parts, each of which may go before the next one comes."""
    while parts:
        yield parts.pop(0)


def _kept(file: Path, made_from: str) -> Fingerprint | None:
    if not file.is_file():
        return None
    try:
        found = read_fingerprint(file)
    except DataError:
        return None  # damaged: made anew
    return found if found.extra.get("segplug", {}).get(MADE_FROM) == made_from else None


def state_of(project: Project, raw: RawDataset, reader: str) -> str:
    """Hash of what the fingerprint depends on: the files (by size and time of change), their reader, our arithmetic."""

    def state(path: Path) -> tuple[str, int, int]:
        status = file_state(path)
        return os.path.relpath(path, raw.folder), status.size, status.mtime_ns

    files = {c.name: [state(p) for p in (*c.images, *filter(None, [c.label]))] for c in raw.cases.values()}
    provider = record([project.kernel.registry.find("readers", reader)])
    return value_hash([_VERSION, raw.description.num_channels, provider, files])
