"""Readers, writers and converters: what stands in files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from segplug.errors import DataError, SegplugError
from segplug.kernel import Provided
from segplug.model import ComponentRef, Geometry, Labels
from segplug.protocols import Reader, Writer
from segplug.testing.conformance.suite import Subject, check, expect, refusal, skip

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".bmp", ".tif", ".tiff")
SPACING = (2.0, 0.75, 1.25)


@check("readers", "an image is float32 (1, z, y, x) with three spacings, (z, y, x), and the same when it is read again")
def _reads(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, labels = _written(subject, Path(folder))
        reader: Reader = subject.build()
        image, again = reader([path]), reader([path])
    array = image.array
    expect(array.dtype == np.float32, f"the array is {array.dtype}; expected float32")
    expect(array.shape == (1, *labels.shape), f"shape {array.shape}; expected {(1, *labels.shape)}")
    same = sorted(array.ravel().tolist()) == sorted(labels.array.ravel().tolist())
    expect(same, "the voxels have other values than the file")
    expect(len(image.spacing) == 3, f"spacing {image.spacing}; expected three numbers, (z, y, x)")
    expect(np.array_equal(array, again.array) and image.spacing == again.spacing, "reading twice gave two images")


@check("readers", "two files are two channels, in their order")
def _stacks_channels(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, labels = _written(subject, Path(folder))
        other, _ = _written(subject, Path(folder), "other", flipped=True)
        reader: Reader = subject.build()
        try:
            image = reader([path, other])
        except DataError as error:
            skip(f"the format holds all channels in one file: {error}")
        alone = [reader([each]).array[0] for each in (path, other)]
    expect(image.array.shape == (2, *labels.shape), f"shape {image.array.shape}; expected {(2, *labels.shape)}")
    expect(np.array_equal(image.array, np.stack(alone)), "the channels are not the files in their order")


@check("readers", "a missing file is refused by name")
def _misses(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"absent{_ending(subject)}"
        refusal(lambda: subject.build()([path]), "a missing file", path.name)


@check("readers", "a damaged file is refused by name")
def _refuses_damage(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"damaged{_ending(subject)}"
        path.write_bytes(b"this is no image" * 40)
        refusal(lambda: subject.build()([path]), "a file of 640 bytes of text", path.name)


@check("writers", "written with the geometry it was read with, a label map is read again as it was")
def _round_trip(subject: Subject) -> None:
    registry = subject.kernel.registry
    name = _counterpart(subject, "readers")
    if name is None:
        skip(f"there is no reader {subject.ref.name!r} to read the file with")
    reader: Reader = registry.build("readers", ComponentRef(name))
    with tempfile.TemporaryDirectory() as folder:
        path, labels = _written(subject, Path(folder))
        first = reader([path])
        other = path.with_name(f"again{_ending(subject)}")
        subject.build()(other, Labels(first.array[0].astype(np.uint8), first.geometry))
        second = reader([other])
    expect(first.shape == labels.shape, f"shape {first.shape}; expected {labels.shape}")
    expect(np.array_equal(first.array, second.array), "the voxels changed on the way")
    expect(bool(np.allclose(first.spacing, second.spacing)), f"spacing {first.spacing} became {second.spacing}")
    directions = first.geometry.direction, second.geometry.direction
    expect(bool(np.allclose(*directions)), f"the direction {directions[0]} became {directions[1]}")
    kept = labels.shape[0] > 1  # formats of plain pictures have no spacing
    wanted = sorted(SPACING)
    expect(not kept or bool(np.allclose(sorted(first.spacing), wanted, rtol=1e-5)), f"spacing {first.spacing}")


@check("writers", "the file has the name that was asked for, and the labels are left as they were")
def _writes_there(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, labels = _written(subject, Path(folder))
        expect(
            path.exists(), f"{path.name} was not written; there are: {sorted(p.name for p in path.parent.iterdir())}"
        )
        again = _labels(labels.shape)
        expect(bool((labels.array == again.array).all()), "writing changed the array that it was given")


@check("converters", "an empty folder is refused, and nothing is written")
def _refuses_nothing(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty_source"
        source.mkdir()
        refusal(lambda: subject.build()(source), "an empty folder")
        expect(not list(source.iterdir()), "something was written into the source")


def _ending(subject: Subject) -> str:
    """Of the component's files: given, or found by the choice hooks, or the component's name."""
    if subject.ending:
        return subject.ending
    registry = subject.kernel.registry
    for ending in ENDINGS:
        for hook, kind in (("segplug_choose_reader", "readers"), ("segplug_choose_writer", "writers")):
            chosen = subject.kernel.choose(hook, path=Path(f"case_0000{ending}"))
            if chosen is not None and _is(registry.find(kind, chosen), subject.ref.name):
                return ending
    if any(_is(each, subject.ref.name) and each.plugin.builtin for each in registry.all(subject.kind)):
        return ENDINGS[0]
    return f".{subject.ref.name.rpartition(':')[2]}"


def _is(provided: Provided, name: str) -> bool:
    return name == provided.qualified_name or provided.answers_to(name)


def _counterpart(subject: Subject, kind: str) -> str | None:
    """The reader of a writer's name, or the other way, its plugin's own before others'; None where there is none."""
    there = subject.kernel.registry.all(kind)
    for name in (subject.ref.name, subject.ref.name.rpartition(":")[2]):
        if any(_is(each, name) for each in there):
            return name
    return None


def _written(subject: Subject, folder: Path, name: str = "case", *, flipped: bool = False) -> tuple[Path, Labels]:
    """A label map in a file, by the writer of the component's name."""
    if subject.kind == "writers":
        writer: Writer = subject.build()
    else:
        named = _counterpart(subject, "writers")
        if named is None:
            skip(f"there is no writer {subject.ref.name!r} to write a file with")
        writer = subject.kernel.registry.build("writers", ComponentRef(named))
    path = folder / f"{name}{_ending(subject)}"
    problems = []
    for shape in ((3, 6, 5), (1, 6, 5)):
        labels = _labels(shape, flipped)
        try:
            writer(path, labels)
        except SegplugError as error:
            problems.append(str(error))
            continue
        return path, labels
    raise AssertionError(f"neither a volume nor a slice could be written: {'; '.join(problems)}")


def _labels(shape: tuple[int, ...], flipped: bool = False) -> Labels:
    array = np.zeros(shape, np.uint8)
    array[:, 1:3, 1:4] = 1
    array[-1, 4, :2] = 3
    spacing = SPACING if shape[0] > 1 else (999.0, 1.0, 1.0)
    return Labels(np.ascontiguousarray(array[:, ::-1]) if flipped else array, Geometry(spacing))
