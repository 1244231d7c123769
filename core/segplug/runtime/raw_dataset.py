"""Raw data sets in nnU-Net's layout, and folders of images to predict: which files make which case."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segplug.errors import DataError
from segplug.kernel import Kernel
from segplug.model import Case, DatasetDescription, RawDataset
from segplug.runtime.dataset_json import (
    KIND,
    check_description,
    label_gaps,
    parse_description,
    read_strict_json,
)
from segplug.runtime.findings import Finding, raise_errors

__all__ = [
    "choose_reader",
    "file_names",
    "find_cases",
    "load_dataset",
    "parse_description",
    "scan_cases",
    "survey_dataset",
]

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".tiff", ".tif", ".png", ".bmp", ".jpg", ".jpeg")
"""Endings by which a stray image is recognised (`scan_cases`); readers of other endings work all the same."""

NAMING = "CASE_0000{ending}, the last four digits being the channel number"


def load_dataset(folder: Path) -> RawDataset:
    """Read dataset.json and find the training cases. No image is opened.

    Raises:
        DataError: the folder or dataset.json is not right, or files of cases are missing; all of it is listed.
    """
    dataset, findings = survey_dataset(folder)
    # nnU-Net trains with these; only verification objects: a second file that is never read, and label numbers left out
    # where regions are what is trained
    passed = {"duplicate case"}
    if dataset is not None and dataset.description.labels.has_regions:
        passed.add("non-consecutive labels")
    raise_errors([f for f in findings if f.kind not in passed], f"data set {folder.name}")
    assert dataset is not None
    if not dataset.cases:
        where = "'dataset' of dataset.json" if "dataset" in dataset.description.raw else f"{folder / 'imagesTr'}"
        named = NAMING.format(ending=dataset.description.file_ending)
        raise DataError(f"data set {dataset.name}: no training cases in {where}; expected files named {named}")
    return dataset


def survey_dataset(folder: Path) -> tuple[RawDataset | None, list[Finding]]:
    """Like `load_dataset`, but all that is wrong comes back as findings, beside the cases that have all their files.

    The data set is None if there is no usable dataset.json.
    """
    if not folder.is_dir():
        return None, [
            Finding("missing folder", "", folder, "no such folder", "the folder of a data set", "Check the name")
        ]
    file = folder / "dataset.json"
    raw, findings = read_strict_json(file)
    if any(f.is_error for f in findings):
        return None, findings
    description, found = check_description(raw, folder.name, file)
    findings += found
    if description is None:
        return None, findings
    gaps = label_gaps(description.labels)
    if gaps:
        values = sorted({*description.labels.all_labels, *filter(None, [description.labels.ignore_label])})
        findings.append(
            Finding(
                "non-consecutive labels",
                "",
                file,
                f"labels {values}",
                f"consecutive numbers; {gaps} are left out",
                "Renumber the labels in dataset.json and in the label maps",
            )
        )
    if "dataset" in description.raw:
        cases, found = _listed_cases(folder, description.raw["dataset"], file)
    else:
        cases, found = _cases_in_folders(folder, description)
    return RawDataset(folder, description, dict(sorted(cases.items()))), findings + found


def find_cases(folder: Path, file_ending: str, num_channels: int | None = None) -> dict[str, Case]:
    """Find the cases in a folder of images (no labels), sorted by name.

    Raises:
        DataError: the folder is missing or empty, or files are named wrongly; everything found is listed.
    """
    cases, findings = scan_cases(folder, file_ending, num_channels)
    raise_errors(findings, str(folder))
    if not cases:
        raise DataError(f"{folder}: no images; expected files named {NAMING.format(ending=file_ending)}")
    return cases


def scan_cases(
    folder: Path, file_ending: str, num_channels: int | None = None
) -> tuple[dict[str, Case], list[Finding]]:
    """Find the cases in a folder of images by nnU-Net's naming, `CASE_0000<ending>`, and all that is wrong there.

    A case may have one file per channel, or fewer where a file holds several (RGB, 4D NIfTI); only reading tells. A
    case that lacks a channel number in between, or has more files than there are channels, is left out and reported.
    Hidden files are passed over.
    """
    if not folder.is_dir():
        expected = f"a folder with files named {NAMING.format(ending=file_ending)}"
        return {}, [Finding("missing folder", "", folder, "no such folder", expected, "Check the name")]
    names = file_names(folder, file_ending)
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(file_ending)}", re.DOTALL)
    channels: dict[str, dict[int, Path]] = {}
    findings: list[Finding] = []
    for name in names:
        match = pattern.fullmatch(name)
        if match:
            channels.setdefault(match[1], {})[int(match[2])] = folder / name
        elif name.endswith(file_ending):
            findings.append(
                Finding(
                    "wrong file name",
                    name.removesuffix(file_ending),
                    folder / name,
                    f"the name {name}",
                    NAMING.format(ending=file_ending),
                    "Rename the file",
                )
            )
    cases = {}
    for name, files in channels.items():
        finding = _check_channels(name, files, folder, file_ending, num_channels)
        if finding is None:
            cases[name] = Case(name, tuple(files[c] for c in sorted(files)))
        else:
            findings.append(finding)
    findings += _other_endings(
        folder, names, file_ending, {f.name for files in channels.values() for f in files.values()}
    )
    return cases, findings


def choose_reader(dataset: RawDataset, kernel: Kernel) -> str:
    """Name the reader for a data set: the one dataset.json names, else the first that a plugin or built-in rule names.

    nnU-Net's name of the reader, where it has one, so that the plan means the same to nnU-Net.

    Raises:
        PluginError: dataset.json names one that does not exist. There is no fallback.
        DataError: nothing reads the first case.
    """
    name = dataset.description.reader
    if name is None:
        first = next(iter(dataset.cases.values())).images[0]
        name = kernel.choose("segplug_choose_reader", path=first)
        if name is None:
            raise DataError(
                f"case {next(iter(dataset.cases))}: {first}: no reader can read this file; expected one of the formats "
                f"of {', '.join(kernel.registry.names('readers'))}. Check the file, or name a reader in dataset.json "
                '("overwrite_image_reader_writer")'
            )
    component = kernel.registry.resolve("readers", name).component
    return component.aliases[0] if component.aliases and ":" not in name else name


def _cases_in_folders(folder: Path, description: DatasetDescription) -> tuple[dict[str, Case], list[Finding]]:
    ending = description.file_ending
    images, findings = scan_cases(folder / "imagesTr", ending, description.num_channels)
    labels_folder = folder / "labelsTr"
    if not labels_folder.is_dir():
        expected = "a folder with one label map per training case"
        return {}, [
            *findings,
            Finding("missing folder", "", labels_folder, "no such folder", expected, "Add the labels"),
        ]
    names = file_names(labels_folder, ending)
    labels = {n.removesuffix(ending): labels_folder / n for n in names if n.endswith(ending)}
    cases = {}
    for name, case in images.items():
        if name in labels:
            cases[name] = Case(name, case.images, labels[name])
        else:
            file = labels_folder / f"{name}{ending}"
            numbered = f"{name}_0000" in labels and f"{name}_0000" not in images
            findings.append(
                Finding(
                    "missing label",
                    name,
                    file,
                    f"only {name}_0000{ending}" if numbered else "no such file",
                    "a label map for every training image",
                    f"Rename it to {file.name}: label maps have no channel number"
                    if numbered
                    else "Add the label map, or take the images out of imagesTr",
                )
            )
    known = {*images, *(f.case for f in findings), *(f"{f.case}_0000" for f in findings if f.kind == "missing label")}
    findings += [
        Finding(
            "missing image",
            name,
            file,
            "a label map without images",
            f"{folder / 'imagesTr' / name}_0000{ending}",
            "Add the images, or take the label map out of labelsTr; it is not used",
            "warning",
        )
        for name, file in labels.items()
        if name not in known
    ]
    findings += _other_endings(labels_folder, names, ending, {p.name for p in labels.values()})
    return cases, findings


def file_names(folder: Path, ending: str) -> list[str]:
    """Sorted; hidden files are not ours, and a dangling link is a file that reading will find missing.

    A folder with the ending counts as a file where a format may be one: OME-Zarr, a DICOM series.
    """
    as_folder = None if ending in IMAGE_ENDINGS else ending
    entries = [e for e in os.scandir(folder) if not e.name.startswith(".")]
    return sorted(e.name for e in entries if not e.is_dir() or (as_folder and e.name.endswith(as_folder)))


def _listed_cases(folder: Path, listed: Any, file: Path) -> tuple[dict[str, Case], list[Finding]]:
    """Cases named one by one under `dataset`; paths are relative to the folder, with environment variables."""
    example = '{"CASE": {"images": ["path", ...], "label": "path"}}'
    if not isinstance(listed, Mapping):
        return {}, [Finding(KIND, "", file, f"dataset: a {type(listed).__name__}", example, "Correct the file")]
    cases, findings = {}, []
    for name, entry in listed.items():
        images = entry.get("images") if isinstance(entry, Mapping) else None
        label = entry.get("label") if isinstance(entry, Mapping) else None
        images = [images] if isinstance(images, str) else images
        if not isinstance(images, list) or not images or not all(isinstance(p, str) for p in [*images, label]):
            findings.append(Finding(KIND, name, file, f"the entry {entry!r}", example, "Correct the entry"))
            continue
        if not name or name in (".", "..") or re.search(r"[/\\\0]", name):
            findings.append(
                Finding(KIND, name, file, f"the case name {name!r}", "a name fit for a file", "Rename the case")
            )
            continue
        paths = [_resolve(folder, p) for p in [*images, label]]
        missing = [p for p in paths if not p.exists()]
        for path in missing:
            unset = " (environment variable not set)" if "$" in str(path) else ""
            kind = "missing label" if path == paths[-1] else "missing image"
            findings.append(
                Finding(
                    kind,
                    name,
                    path,
                    f"no such file{unset}",
                    "a file for each path in dataset.json",
                    "Add the file or correct the path",
                )
            )
        if not missing:
            cases[name] = Case(name, tuple(paths[:-1]), paths[-1])
    return cases, findings


def _resolve(folder: Path, text: str) -> Path:
    return Path(os.path.abspath(folder / os.path.expandvars(text)))


def _check_channels(
    name: str, files: Mapping[int, Path], folder: Path, ending: str, num_channels: int | None
) -> Finding | None:
    expected = range(num_channels) if num_channels is not None else range(max(files) + 1)
    spare = sorted(set(files) - set(expected))
    if spare:
        return Finding(
            "too many channels",
            name,
            files[spare[0]],
            f"channel {', '.join(f'{c:04d}' for c in spare)}",
            f"channels 0000 to {len(expected) - 1:04d} (channel_names)",
            "Take the files out, or add the channels to dataset.json",
        )
    missing = sorted(set(range(max(files) + 1)) - set(files))
    if missing:
        return Finding(
            "missing channel",
            name,
            folder / f"{name}_{missing[0]:04d}{ending}",
            f"channel {', '.join(f'{c:04d}' for c in sorted(files))} alone",
            "every channel from 0000 on",
            "Add the missing files",
        )
    return None


def _other_endings(folder: Path, names: list[str], ending: str, used: set[str]) -> list[Finding]:
    """Images that nothing will read because they have another ending than the data set's."""
    findings = []
    for name in names:
        other = next((e for e in IMAGE_ENDINGS if name.lower().endswith(e)), None)
        if other is None or name.endswith(ending):
            continue
        stem = name[: -len(other)]
        twin = f"{stem}{ending}" in used
        case = re.sub(r"_\d{4}$", "", stem)
        remedy = "Keep one of them" if twin else "Convert or rename the file, or take it away"
        expected = f"one file per name, {stem}{ending}" if twin else f"files ending in {ending}; this one is never read"
        findings.append(
            Finding(
                "duplicate case" if twin else "unused file",
                case,
                folder / name,
                f"{name} beside {stem}{ending}" if twin else f"the ending {name[len(stem) :]}",
                expected,
                remedy,
                "error" if twin else "warning",
            )
        )
    return findings
