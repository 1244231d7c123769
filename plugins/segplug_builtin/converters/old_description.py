"""dataset.json of the Medical Segmentation Decathlon, which nnU-Net v1 took over: labels by number, `modality`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segplug.errors import DataError
from segplug.runtime.dataset_json import KIND, read_strict_json
from segplug.runtime.findings import Finding, raise_errors

ENDING = ".nii.gz"
"""Of every image and label map, by both layouts' rules."""

FILE = "dataset.json"


@dataclass(frozen=True)
class OldDescription:
    """Content of an old dataset.json, with labels and channels as nnU-Net v2 has them."""

    raw: dict[str, Any]
    channels: dict[str, str]
    labels: dict[str, int]
    notes: tuple[str, ...]

    def modern(self, training: int, without: Sequence[str]) -> dict[str, Any]:
        """dataset.json of nnU-Net v2: what else stood there is kept, but for the entries `without`.

        Args:
            training: number of training cases.
        """
        kept = {key: value for key, value in self.raw.items() if key not in without}
        return {
            **kept,
            "labels": self.labels,
            "numTraining": training,
            "file_ending": ENDING,
            "channel_names": self.channels,
        }

    def count_note(self, training: int) -> tuple[str, ...]:
        """A word on a number of training cases that is not what dataset.json says."""
        stated = self.raw.get("numTraining")
        if stated == training:
            return ()
        return (f"numTraining is {training}, the cases there are; {FILE} of the source says {stated}",)


def is_old(source: Path) -> bool:
    """A folder with dataset.json of the old kind and training cases."""
    raw, findings = read_strict_json(source / FILE) if source.is_dir() else (None, [])
    return (
        not findings
        and isinstance(raw, dict)
        and isinstance(raw.get("modality"), dict)
        and "file_ending" not in raw
        and (source / "imagesTr").is_dir()
        and (source / "labelsTr").is_dir()
    )


def named_by_channel(source: Path) -> bool:
    """The first training image is named CASE_0000 beside a label map CASE (v1), not like its label map (Decathlon)."""
    images, labels = image_files(source / "imagesTr"), {p.name for p in image_files(source / "labelsTr")}
    first = images[0].name if images else ""
    return first not in labels and f"{first.removesuffix(ENDING)[:-5]}{ENDING}" in labels


def image_files(folder: Path) -> list[Path]:
    """Images of a folder, sorted; macOS's shadows of files (`._x`) and other hidden ones are none."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.endswith(ENDING) and p.name[0] not in "._")


def read_old(source: Path) -> OldDescription:
    """Read dataset.json.

    Raises:
        DataError: it is missing or damaged, or of another kind; all that is wrong is listed.
    """
    file = source / FILE
    raw, findings = read_strict_json(file)
    raise_errors(findings, source.name)
    if not isinstance(raw, dict):
        raise DataError(f"{file}: found a JSON {type(raw).__name__}; expected an object. Correct the file")
    if "channel_names" in raw:
        raise DataError(
            f"{file}: found channel_names; expected modality. This is a data set of nnU-Net v2 already: use it as it is"
        )
    labels, notes, found = _labels(raw.get("labels"), file)
    channels, wrong = _channels(raw.get("modality"), file)
    raise_errors([*found, *wrong], source.name)
    return OldDescription(raw, channels, labels, notes)


def _labels(value: Any, file: Path) -> tuple[dict[str, int], tuple[str, ...], list[Finding]]:
    example = 'labels: numbers to names, {"0": "background", "1": "tumour"}'
    if not isinstance(value, dict) or not value or not all(k.isdecimal() for k in value):
        return {}, (), [_finding(file, f"labels {value}", example)]
    numbered = {int(number): str(name) for number, name in value.items()}
    names = list(numbered.values())
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or len(numbered) < len(value):
        return {}, (), [_finding(file, f"labels {value}", "each number and each name once")]
    notes: tuple[str, ...] = ()
    if 0 not in numbered:
        numbered = {0: "background", **numbered}
        notes = ("label 0 has no name in the source; it is the background",)
    elif numbered[0] != "background":
        if "background" in numbered.values():
            return {}, (), [_finding(file, f"labels {value}", "background: 0")]
        notes = (f"label 0, {numbered[0]!r} in the source, is called background",)
        numbered[0] = "background"
    return {name: number for number, name in numbered.items()}, notes, []


def _channels(value: Any, file: Path) -> tuple[dict[str, str], list[Finding]]:
    if not isinstance(value, dict) or sorted(value) != sorted(map(str, range(len(value)))) or not value:
        return {}, [_finding(file, f"modality {value}", 'modality: numbers from 0 to names, {"0": "MRI"}')]
    return {str(number): str(name) for number, name in value.items()}, []


def _finding(file: Path, found: str, expected: str) -> Finding:
    return Finding(KIND, "", file, found, expected, "Correct it in a copy of the source")
