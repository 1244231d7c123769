"""Everything that can be wrong with the files of one case, found in one reading of them.

The arrays come back with the findings, so that a stage that needs both does not read twice.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import Case, DatasetDescription, Image, Labels
from segplug.protocols import Reader
from segplug.runtime.case_reading import whole_numbers
from segplug.runtime.findings import Finding
from segplug.runtime.geometry import ASSUMED, DOUBTS, differences
from segplug.runtime.label_counts import count_labels
from segplug.runtime.wording import counted

LISTED = 10
"""Unexpected label values that a finding names one by one."""


@dataclass(frozen=True)
class InspectedCase:
    """A case, read completely.

    Args:
        image: all channels, None unless every file could be read and lies on one grid.
        labels: the label map, None unless it is one channel of whole numbers.
        findings: what is wrong.
        image_digest, label_digest: stand for the voxels, equal for equal content whatever the compression; empty where
            there is none, and for an image of one value, of which any number may be alike.
        label_counts: voxels per label value.
    """

    image: Image | None
    labels: Labels | None
    findings: tuple[Finding, ...]
    image_digest: str = ""
    label_digest: str = ""
    label_counts: Mapping[int, int] = field(default_factory=dict)


def inspect_case(case: Case, reader: Reader, description: DatasetDescription) -> InspectedCase:
    """Read every file of a case to its end and check it by itself and against the others. Never raises `DataError`."""
    # the label map first: while it is read it takes twice what is kept of it, and the image is not there yet
    told: list[Finding] = []
    found = None if case.label is None else _inspect_labels(case, case.label, reader, description, told)
    findings: list[Finding] = []
    channels = _read_channels(case, reader, findings)
    readable = [(path, image) for path, image in zip(case.images, channels, strict=True) if image is not None]
    for path, channel in readable:
        findings += _check_voxels(case, path, channel)
    apart = [f for p, c in readable[1:] for f in _compare(case, p, c, *readable[0], "the other channels")]
    findings += apart
    image = None
    if len(readable) == len(channels):
        findings += _check_channel_count(case, readable, description)
        if not any(f.is_error for f in apart):
            image = Image(_stacked([c.array for _, c in readable]), readable[0][1].geometry)
    digest = "" if image is None or image.array.min() == image.array.max() else _digest(image.array)
    if case.label is None or found is None:
        return InspectedCase(image, None, (*findings, *told), digest)
    if readable:
        told[found.unread : found.unread] = _compare(case, case.label, found.outline, *readable[0], "the image")
    return InspectedCase(image, found.labels, (*findings, *told), digest, found.digest, found.counts)


@dataclass(frozen=True)
class _InspectedLabels:
    """A label map by itself.

    Args:
        labels: None where they are no labels.
        outline: shape and geometry, with voxels of which none is in memory.
        unread: findings of the reader, which come before those on the grid.
    """

    labels: Labels | None
    outline: Image
    digest: str
    counts: Mapping[int, int]
    unread: int


def _inspect_labels(
    case: Case, path: Path, reader: Reader, description: DatasetDescription, findings: list[Finding]
) -> _InspectedLabels | None:
    label = _read(case, path, reader, findings)
    if label is None:
        return None
    unread = len(findings)
    labels, counts = _check_labels(case, path, label, description, findings)
    outline = Image(np.broadcast_to(np.float32(0), label.array.shape), label.geometry)
    return _InspectedLabels(labels, outline, _digest(label.array), counts, unread)


def _read_channels(case: Case, reader: Reader, findings: list[Finding]) -> list[Image | None]:
    """What each file holds; channels of one shape are parts of one array, so that they need not be copied together."""
    channels: list[Image | None] = []
    whole: NDArray[np.float32] | None = None
    for number, path in enumerate(case.images):
        channel = _read(case, path, reader, findings)
        if channel is not None and len(case.images) > 1:
            if whole is None:
                whole = np.empty((len(case.images), *channel.shape), np.float32)
            if channel.array.shape == (1, *whole.shape[1:]):
                whole[number] = channel.array[0]
                channel = Image(whole[number : number + 1], channel.geometry)
        channels.append(channel)
    return channels


def _stacked(arrays: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The channels of a case as one array; the one that they are parts of, if there is one."""
    if len(arrays) == 1:
        return arrays[0]
    whole = arrays[0].base
    if isinstance(whole, np.ndarray) and len(whole) == len(arrays) and all(a.base is whole for a in arrays):
        return whole
    return np.concatenate(arrays)


def _read(case: Case, path: Path, reader: Reader, findings: list[Finding]) -> Image | None:
    try:
        image = reader([path])
    except DataError as error:
        findings.append(_unreadable(case, path, str(error)))
        return None
    except MemoryError:
        raise
    except Exception as error:  # a plugin's reader may raise anything; the other files still want checking
        findings.append(_unreadable(case, path, f"{type(error).__name__}: {error}"))
        return None
    if "spacing" in image.geometry.extra.get(ASSUMED, ()):
        findings.append(
            Finding(
                "no spacing", case.name, path, f"no spacing for this file; {image.spacing} is assumed",
                'a JSON file of the case\'s name beside it: {"spacing": [z, y, x]}',
                "Add the file unless the assumption is right", "warning",
            )
        )  # fmt: skip
    for kind, found, expected, remedy in image.geometry.extra.get(DOUBTS, ()):
        findings.append(Finding(kind, case.name, path, found, expected, remedy, "warning"))
    return image


def _unreadable(case: Case, path: Path, message: str) -> Finding:
    """Readers word their errors as `file: what was found; expected what. What to do`."""
    found, _, rest = message.removeprefix(f"{path}: ").partition("; expected ")
    expected, _, remedy = rest.partition(". ")
    if not rest:
        found, _, remedy = found.partition(". ")
        expected = "a whole file that the data set's reader can read"
    return Finding("unreadable file", case.name, path, found, expected, remedy or "Restore the file from its source")


def _check_voxels(case: Case, path: Path, image: Image) -> list[Finding]:
    findings = []
    for index, channel in enumerate(image.array):
        where = f" in channel {index} of the file" if len(image.array) > 1 else ""
        # one pass without a temporary: a float64 sum of finite float32 values cannot overflow
        with np.errstate(invalid="ignore"):  # infinity and its negative
            total = channel.sum(dtype=np.float64)
        if not np.isfinite(total):
            nans, infinities = int(np.isnan(channel).sum()), int(np.isinf(channel).sum())
            found = f"{nans} NaN and {infinities} infinite of {channel.size} voxels{where}"
            findings.append(
                Finding(
                    "non-finite voxels", case.name, path, found,
                    "finite numbers", "Replace them by what makes sense for the image, such as its background value",
                )
            )  # fmt: skip
        elif channel.min() == channel.max():
            findings.append(
                Finding(
                    "empty image", case.name, path, f"the value {channel.flat[0]:g} in every voxel{where}",
                    "an image", "Check the export of this image; there is nothing to learn from it", "warning",
                )
            )  # fmt: skip
    return findings


def _compare(case: Case, path: Path, image: Image, other_path: Path, other: Image, role: str) -> list[Finding]:
    """Findings for every way in which a file's grid is not that of the case's first image file."""
    return [
        Finding(
            f"{difference.what} differs", case.name, path, f"{difference.what} {difference.found}",
            f"{difference.expected}, as {other_path} has it",
            f"Resample the file to the grid of {role}, or correct its header if the voxels do match",
            "warning" if difference.aligned else "error",
        )
        for difference in differences(image.geometry, image.shape, other.geometry, other.shape)
    ]  # fmt: skip


def _check_channel_count(
    case: Case, readable: list[tuple[Path, Image]], description: DatasetDescription
) -> list[Finding]:
    found = sum(len(image.array) for _, image in readable)
    expected = description.num_channels
    if found == expected:
        return []
    names = ", ".join(description.channel_names)
    return [
        Finding(
            "missing channel" if found < expected else "too many channels", case.name, readable[-1][0],
            f"{counted(found, 'channel')} in {counted(len(readable), 'file')}",
            f"{expected} (channel_names: {names})",
            "Add or take away channel files, or correct channel_names in dataset.json",
        )
    ]  # fmt: skip


def _check_labels(
    case: Case, path: Path, image: Image, description: DatasetDescription, findings: list[Finding]
) -> tuple[Labels | None, dict[int, int]]:
    def add(kind: str, found: str, expected: str, remedy: str, error: bool = True) -> None:
        findings.append(Finding(kind, case.name, path, found, expected, remedy, "error" if error else "warning"))

    label_set = description.labels
    allowed = [*label_set.all_labels, *([] if label_set.ignore_label is None else [label_set.ignore_label])]
    if len(image.array) != 1:
        add(
            "label map with channels", counted(len(image.array), "channel"), "one channel whose values are the labels",
            "Save the label map as grey values, not as colours",
        )  # fmt: skip
        return None, {}
    try:
        array = whole_numbers(image.array[0], path)
    except DataError:
        values, counts = np.unique(image.array, return_counts=True)
        wrong = [(v, n) for v, n in zip(values.tolist(), counts.tolist(), strict=True) if v not in allowed]
        add("unexpected labels", _listed(wrong), f"labels {allowed} of dataset.json", "Correct the label map")
        return None, {}
    label_counts = count_labels(array)
    wrong = [(v, n) for v, n in label_counts.items() if v not in allowed]
    if wrong:
        add(
            "unexpected labels", _listed(wrong), f"labels {allowed} of dataset.json",
            "Correct the label map, or add the label to dataset.json",
        )  # fmt: skip
    elif not any(label_counts.get(v) for v in label_set.foreground_labels):
        only = ", ".join(map(str, label_counts))
        add(
            "no foreground", f"only label {only}", "at least one foreground voxel in most cases",
            "Check that the case is annotated; nothing to do if it shows nothing to segment", error=False,
        )  # fmt: skip
    return Labels(array, image.geometry), label_counts


def _listed(values: list[tuple[float, int]]) -> str:
    text = ", ".join(f"{v:g} ({counted(n, 'voxel')})" for v, n in values[:LISTED])
    return f"{text} and {counted(len(values) - LISTED, 'more value')}" if len(values) > LISTED else text


def _digest(array: NDArray[np.float32]) -> str:
    """Shape, checksum and sum: as good as a cryptographic hash between images, and five times faster."""
    with np.errstate(invalid="ignore"):
        total = float(array.sum(dtype=np.float64))
    checksum = zlib.crc32(np.ascontiguousarray(array).data)
    return f"{'x'.join(map(str, array.shape))} {checksum:08x} {total.hex()}"
