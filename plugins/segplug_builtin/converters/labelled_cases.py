"""From images and label maps, wherever they were found, to nnU-Net's folders: what folders and BIDS have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from segplug.errors import DataError, UsageError
from segplug.model import Conversion, ConvertedFile
from segplug.runtime.findings import Finding, raise_errors
from segplug.runtime.raw_dataset import IMAGE_ENDINGS
from segplug.runtime.wording import counted, listed
from segplug_builtin.converters.label_maps import write_merged, write_renumbered
from segplug_builtin.converters.label_names import LabelNames

UNLABELLED = ("error", "skip", "test")
"""What becomes of images without a mask: an error, left out, or taken into imagesTs."""


@dataclass(frozen=True)
class LabelledCase:
    """What was found of one case.

    Args:
        images: channel -> file.
        masks: files; the key is the structure of a mask, or empty for a label map.
    """

    name: str
    images: Mapping[str, Path]
    masks: Mapping[str, Path] = field(default_factory=dict)


def ending_of(path: Path) -> str:
    """The ending of an image's name (".nii.gz") in small letters; the last suffix for unknown formats."""
    name = path.name.lower()
    return next((e for e in IMAGE_ENDINGS if name.endswith(e)), path.suffix.lower())


def convert_cases(
    source: Path,
    cases: Sequence[LabelledCase],
    channels: Mapping[str, str],
    labels: LabelNames,
    *,
    in_one_file: Sequence[str] = (),
    overlap: bool = False,
    unlabelled: str = "error",
    notes: Sequence[str] = (),
) -> Conversion:
    """The data set of these cases.

    Args:
        channels: channel of a case's images -> its name in dataset.json, in order.
        in_one_file: names of the channels where one file holds all (RGB), instead of those of `channels`.
        labels: structures; their values are numbers in label maps, or the keys of `LabelledCase.masks`.
        overlap: see `segplug_builtin.converters.label_maps.write_merged`.
        unlabelled: one of `UNLABELLED`.

    Raises:
        UsageError: `unlabelled` is something else.
        DataError: cases lack channels or masks, or images are in several formats; all is listed.
    """
    if unlabelled not in UNLABELLED:
        raise UsageError(f"--unlabelled {unlabelled}: expected one of {', '.join(UNLABELLED)}")
    findings = [f for case in cases for f in _check_channels(case, channels, source)]
    without = [case for case in cases if not case.masks]
    if unlabelled == "error":
        findings += [_no_mask(case, source) for case in without]
    training = [case for case in cases if case.masks]
    test = without if unlabelled == "test" else []
    ending, found = _one_ending([*training, *test], channels)
    raise_errors([*findings, *found], source.name)
    if not training:
        raise DataError(f"{source}: found no case with image and mask; expected at least one. Check the patterns")
    files = [f for case in training for f in _images(case, channels, "imagesTr", ending)]
    files += [f for case in test for f in _images(case, channels, "imagesTs", ending)]
    files += [f for case in training for f in _label_map(case, labels, ending, overlap)]
    said = list(notes)
    if without and unlabelled == "skip":
        said.append(f"{counted(len(without), 'case')} without a mask left out: {listed([c.name for c in without])}")
    if test:
        said.append(f"{counted(len(test), 'case')} without a mask in imagesTs: {listed([c.name for c in test])}")
    absent = [f"{c.name} ({', '.join(a)})" for c in training if (a := _absent(c, labels))]
    if absent:
        said.append(f"taken as not present, for there is no mask of it: {listed(absent)}")
    record: dict[str, Any] = {"labels": {name: list(values) for name, values in labels.values.items()}}
    description = {
        "channel_names": {str(number): name for number, name in enumerate(in_one_file or channels.values())},
        "labels": labels.numbers,
        "numTraining": len(training),
        "file_ending": ending,
    }
    return Conversion(description, tuple(files), tuple(said), record)


def _check_channels(case: LabelledCase, channels: Mapping[str, str], source: Path) -> list[Finding]:
    missing = [c for c in channels if c not in case.images]
    spare = [c for c in case.images if c not in channels]
    there = next(iter(case.images.values()), source)
    expected = f"one image of each channel: {', '.join(channels)}"
    remedy = "Add the files to the source, or name the channels to use with --channel"
    found = [Finding("missing channel", case.name, there, f"no image of {', '.join(missing)}", expected, remedy)]
    extra = [
        Finding("unknown channel", case.name, case.images[c], f"an image of {c!r}", expected, remedy) for c in spare
    ]
    return (found if missing else []) + extra


def _no_mask(case: LabelledCase, source: Path) -> Finding:
    remedy = "Add it, or call with --unlabelled skip, or --unlabelled test to put such images into imagesTs"
    file = next(iter(case.images.values()), source)
    return Finding("missing label", case.name, file, "an image without a mask", "a mask for every case", remedy)


def _one_ending(cases: Sequence[LabelledCase], channels: Mapping[str, str]) -> tuple[str, list[Finding]]:
    files = {path: case.name for case in cases for c, path in case.images.items() if c in channels}
    endings = [ending_of(path) for path in files]
    if not endings:
        return "", []
    usual = max(sorted(set(endings)), key=endings.count)
    readable = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".tif", ".tiff", ".png", ".bmp")
    if usual not in readable:
        first = next(iter(files))
        expected = f"one of {', '.join(readable)}"
        return usual, [Finding("format", files[first], first, f"the ending {usual}", expected, "Convert the images")]
    return usual, [
        Finding(
            "format", name, path, f"the ending {ending_of(path)}", f"{usual}, as most images have",
            "Bring all images to one format, or choose a pattern that finds only one",
        )
        for path, name in files.items() if ending_of(path) != usual
    ]  # fmt: skip


def _images(case: LabelledCase, channels: Mapping[str, str], folder: str, ending: str) -> list[ConvertedFile]:
    files = [
        ConvertedFile(case.name, (case.images[channel],), (f"{folder}/{case.name}_{number:04d}{ending}",))
        for number, channel in enumerate(channels)
    ]
    spacing = _spacing_file(next(case.images[c] for c in channels), case)
    return [*files, *([ConvertedFile(case.name, (spacing,), (f"{folder}/{case.name}.json",))] if spacing else [])]


def _label_map(case: LabelledCase, labels: LabelNames, ending: str, overlap: bool) -> list[ConvertedFile]:
    target = (f"labelsTr/{case.name}{ending}",)
    spacing = _spacing_of_masks(case)
    if "" not in case.masks:
        numbers = labels.by_value
        # the order of the labels decides who wins where masks overlap
        masks = sorted((numbers[word], path) for word, path in case.masks.items())
        make = partial(write_merged, masks=tuple(masks), overlap=overlap, spacing=spacing)
        return [ConvertedFile(case.name, tuple(path for _, path in masks), target, make)]
    path = case.masks[""]
    if not labels.as_they_are or ending_of(path) != ending:
        make = partial(write_renumbered, source=path, mapping=labels.mapping, spacing=spacing)
        return [ConvertedFile(case.name, (path,), target, make)]
    beside = [ConvertedFile(case.name, (spacing,), (f"labelsTr/{case.name}.json",))] if spacing else []
    return [ConvertedFile(case.name, (path,), target), *beside]


def _spacing_of_masks(case: LabelledCase) -> Path | None:
    """Where stacks of a case have their spacing; those without take the image's. Other formats hold their own."""
    masks = [*case.masks.values()]
    found = [file for path in masks if (file := _spacing_file(path, case)) is not None]
    if not found and all(_is_tiff(path) for path in masks):
        return _spacing_file(next(iter(case.images.values())), case)
    return next(iter(found), None)


def _is_tiff(path: Path) -> bool:
    return path.name.lower().endswith((".tif", ".tiff"))


def _spacing_file(path: Path, case: LabelledCase) -> Path | None:
    """What a TIFF stack has its spacing in (nnU-Net's `CASE.json`), beside it in the source."""
    if not _is_tiff(path):
        return None
    beside = (path.with_name(f"{case.name}.json"), path.with_suffix(".json"))
    return next((file for file in beside if file.is_file()), None)


def _absent(case: LabelledCase, labels: LabelNames) -> list[str]:
    return [] if "" in case.masks else [w for w in labels.by_value if w not in case.masks]
