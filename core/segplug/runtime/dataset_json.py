"""dataset.json: from JSON to a `DatasetDescription`, with every problem in it found at once.

The format and its rules are nnU-Net v2's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segplug.model import DatasetDescription, LabelSet
from segplug.runtime.confusion import as_labels
from segplug.runtime.findings import Finding, raise_errors

KIND = "dataset.json"

LARGEST_LABEL = 2**15 - 2
"""Preprocessed label maps have 16 bits with a sign, and -1 has a meaning; one more is left for the ignore label."""

LabelValue = int | tuple[int, ...]


def parse_description(raw: Mapping[str, Any], name: str, file: Path) -> DatasetDescription:
    """Make a description from the content of a dataset.json.

    Args:
        raw: the JSON object.
        name: the data set's name, `DatasetXXX_NAME`.
        file: where it came from, for messages.

    Raises:
        DataError: something in it is missing or wrong; every such thing is listed.
    """
    description, findings = check_description(raw, name, file)
    raise_errors(findings, f"data set {name}")
    assert description is not None
    return description


def check_description(raw: Any, name: str, file: Path) -> tuple[DatasetDescription | None, list[Finding]]:
    """Like `parse_description`, but findings come back as values; None where there are errors among them."""
    check = _Check(file)
    if not isinstance(raw, Mapping):
        check.error(f"a JSON {type(raw).__name__}", "an object with channel_names, labels, numTraining and file_ending")
        return None, check.findings
    channel_names = _channel_names(raw, check)
    labels = _labels(raw, check)
    file_ending = _file_ending(raw, check)
    num_training = _num_training(raw, check)
    reader = _reader(raw, check)
    if any(f.is_error for f in check.findings):
        return None, check.findings
    return DatasetDescription(name, channel_names, labels, file_ending, num_training, reader, dict(raw)), check.findings


def read_strict_json(file: Path) -> tuple[Any, list[Finding]]:
    """Read a JSON file, and find names that occur twice in one object (JSON readers silently keep the last)."""
    check = _Check(file)

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(found)
        if len(value) < len(found):
            names = [n for n, _ in found]
            twice = sorted({n for n in names if names.count(n) > 1})
            check.error(f"{', '.join(twice)} more than once in one object", "each name once", "Rename or delete one")
        return value

    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=pairs), check.findings
    except FileNotFoundError:
        check.error("no such file", "dataset.json in the data set's folder", "Write one; the documentation shows how")
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        check.error(f"no valid JSON: {error}", "a JSON object")
    except RecursionError:
        check.error("JSON nested too deeply to be read", "a JSON object")
    except OSError as error:
        check.error(f"a file that cannot be read: {error.strerror}", "a readable file", "Check its rights and the disk")
    return None, check.findings


def label_gaps(labels: LabelSet) -> list[int]:
    """Numbers left out between 0 and the highest label, ignore included; nnU-Net demands that there are none."""
    values = [*labels.all_labels] + ([] if labels.ignore_label is None else [labels.ignore_label])
    return sorted(set(range(max(values))) - set(values))


class _Check:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.findings: list[Finding] = []

    def error(self, found: str, expected: str, remedy: str = "Correct the file") -> None:
        self.findings.append(Finding(KIND, "", self.file, found, expected, remedy))

    def warning(self, found: str, expected: str, remedy: str) -> None:
        self.findings.append(Finding(KIND, "", self.file, found, expected, remedy, "warning"))


def _channel_names(raw: Mapping[str, Any], check: _Check) -> tuple[str, ...]:
    key = "channel_names" if "channel_names" in raw else "modality"
    value = raw.get(key)
    example = '{"0": "CT"}, numbers from 0 to names'
    if key not in raw:
        check.error("no channel_names", f"channel_names: {example}")
        return ()
    if not isinstance(value, Mapping) or not value:
        check.error(f"{key} {_shown(value)}", example)
        return ()
    numbers = [int(k) if isinstance(k, str) and k.isdecimal() else -1 for k in value]
    if sorted(numbers) != list(range(len(value))):
        check.error(f"{key} with the numbers {', '.join(map(str, value))}", f"numbers 0 to {len(value) - 1}, each once")
        return ()
    if any(not isinstance(v, str) for v in value.values()):
        check.error(f"{key} {_shown(value)}", "names that are strings")
        return ()
    if numbers != sorted(numbers):
        check.warning(
            f"{key} in the order {', '.join(value)}",
            "ascending numbers",
            "segplug goes by the numbers, nnU-Net by the order in the file: sort them",
        )
    return tuple(name for _, name in sorted(zip(numbers, value.values(), strict=True)))


def _labels(raw: Mapping[str, Any], check: _Check) -> LabelSet:
    value = raw.get("labels")
    example = 'names to numbers, {"background": 0, "tumour": 1}'
    nothing = LabelSet({"background": 0})
    if not isinstance(value, Mapping) or not value:
        check.error("no labels" if "labels" not in raw else f"labels {_shown(value)}", f"labels: {example}")
        return nothing
    if all(k.isdecimal() for k in value) and all(isinstance(v, str) and not v.isdecimal() for v in value.values()):
        check.error(f"labels {_shown(value)}: numbers to names, as in nnU-Net v1", example, "Swap names and numbers")
        return nothing
    values: dict[str, LabelValue] = {}
    for name, entry in value.items():
        parsed = _label_value(entry)
        if parsed is None:
            check.error(
                f"label {name!r}: {_shown(entry)}", "a whole number >= 0, or a list of such numbers for a region"
            )
        else:
            values[name] = parsed
    if len(values) < len(value):
        return nothing
    highest = max(max(v) if isinstance(v, tuple) else v for v in values.values())
    if highest > LARGEST_LABEL:
        check.error(f"label {highest}", f"labels up to {LARGEST_LABEL}", "Renumber the labels")
        return nothing
    if values.get("background") != 0:
        found = (
            f"label 'background': {_shown(value['background'])}" if "background" in values else "no label 'background'"
        )
        check.error(found, "background: 0")
    labels = LabelSet(values, _class_order(raw, check))
    _check_ignore(labels, check)
    _check_regions(labels, check)
    if not labels.foreground_labels:
        check.error("no label but background", "at least one foreground label")
    return labels


def _label_value(entry: Any) -> LabelValue | None:
    """A label as nnU-Net understands it (`int()` of what stands there), None where it makes no sense."""
    if isinstance(entry, (list, tuple)):
        members = tuple(_label_value(e) for e in entry)
        numbers = tuple(m for m in members if isinstance(m, int))
        return numbers if numbers and len(numbers) == len(members) else None
    if isinstance(entry, str) and entry.isdecimal():
        return int(entry)
    if isinstance(entry, bool) or not isinstance(entry, (int, float)) or not 0 <= entry < 2**31:
        return None  # NaN too
    return int(entry) if float(entry).is_integer() else None


def _class_order(raw: Mapping[str, Any], check: _Check) -> tuple[int, ...]:
    order = raw.get("regions_class_order")
    if order is None:
        return ()
    parsed = _label_value(order) if isinstance(order, Sequence) and not isinstance(order, str) else None
    if not isinstance(parsed, tuple):
        check.error(f"regions_class_order {_shown(order)}", "a list of labels, one for each region")
        return ()
    return parsed


def _check_ignore(labels: LabelSet, check: _Check) -> None:
    value = labels.values.get("ignore")
    if value is None:
        return
    highest = max(labels.all_labels)
    if not isinstance(value, int):
        check.error(f"label 'ignore': {_shown(value)}", "one number, no region")
    elif value != highest + 1:
        check.error(f"label 'ignore': {value}", f"{highest + 1}, one above the highest other label")


def _check_regions(labels: LabelSet, check: _Check) -> None:
    order = labels.regions_class_order
    if not labels.has_regions:
        numbers = [v for n, v in labels.values.items() if n != "ignore"]
        if len({*numbers}) < len(numbers):
            check.warning(
                f"several names for one label in {_shown(labels.values)}",
                "one name a label",
                "Delete the names not needed",
            )
        return
    regions = len(labels.regions)
    if len(order) != regions:
        found = f"regions_class_order {list(order)}" if order else "regions without regions_class_order"
        check.error(
            found,
            f"{regions} labels, one for each region, in the order in which they are painted over each other",
            "Write the label that each region leaves in the prediction",
        )
    unknown = sorted(set(order) - set(labels.all_labels))
    if unknown:
        check.error(f"regions_class_order with {unknown}", f"labels of the data set: {list(labels.all_labels)}")
    twice = sorted({v for v in order if order.count(v) > 1})
    if twice:
        check.error(f"regions_class_order with {twice} more than once", "each label once")
    members = [set(as_labels(region)) for region in labels.regions]
    for number, inner in enumerate(members):
        over = next((later for later in range(number + 1, len(members)) if inner <= members[later]), None)
        if over is not None and len(order) == regions:
            first, later = (labels.name_of(labels.regions[place]) for place in (number, over))
            check.warning(
                f"region {first!r} before {later!r}, which holds all of it",
                "the outermost region first: each is painted over those before it",
                f"Put {first!r} and its label in regions_class_order behind {later!r}",
            )
    if any(isinstance(v, tuple) and 0 in v for v in labels.values.values()):
        check.warning("a region that holds background (0)", "regions of foreground", "Delete 0 from the region")


def _file_ending(raw: Mapping[str, Any], check: _Check) -> str:
    value = raw.get("file_ending")
    if value is None:
        check.error("no file_ending", 'file_ending: ".nii.gz" or the ending your files have')
        return ""
    if not isinstance(value, str) or not value.startswith(".") or value == "." or "/" in value:
        check.error(f"file_ending {_shown(value)}", 'an ending with its dot, as ".nii.gz"')
        return ""
    return value


def _num_training(raw: Mapping[str, Any], check: _Check) -> int:
    value = _label_value(raw.get("numTraining"))
    if not isinstance(value, int):
        found = "no numTraining" if "numTraining" not in raw else f"numTraining {_shown(raw['numTraining'])}"
        check.error(found, "numTraining: the number of training cases")
        return 0
    return value


def _reader(raw: Mapping[str, Any], check: _Check) -> str | None:
    value = raw.get("overwrite_image_reader_writer")
    if value is None or value == "None":  # nnU-Net takes the word for the value
        return None
    if not isinstance(value, str) or not value:
        check.error(f"overwrite_image_reader_writer {_shown(value)}", "the name of a reader, as SimpleITKIO")
        return None
    return value


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
