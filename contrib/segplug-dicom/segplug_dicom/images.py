"""DICOM series to images: which series, its slices in order, real values."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import Geometry, Image
from segplug_dicom.segmentations import SEG_CLASSES, read_segmentation
from segplug_dicom.slices import Slice, in_order, slices_of
from segplug_dicom.sources import SELECTION, File, files_of

if TYPE_CHECKING:
    from pydicom import Dataset

MOST_VOXELS = 1 << 32
"""Of an image that is decompressed: a header must not ask for more memory than that."""

KEPT = [
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "SOPClassUID",
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    "SliceThickness",
    "ImageOrientationPatient",
    "PixelSpacing",
]
"""Attributes that a DICOM-SEG of the image repeats, and that go with its geometry."""


def read_dicom(paths: Sequence[Path], *, series: str | None = None) -> Image:
    """See `segplug.protocols.Reader`; a channel per path. A DICOM-SEG becomes a label map of its segment numbers.

    Values are those after RescaleSlope and RescaleIntercept, Hounsfield units for CT. Slices are ordered along their
    normal, whatever files are called.

    Args:
        series: SeriesInstanceUID of the one to take where a folder holds several. None: what the folder's
            `segplug.json` names, or the only one.

    Raises:
        DataError: a file is missing or damaged or cannot be decompressed, there are several series, the slices are no
            even stack at right angles, or the channels' grids differ.
    """
    images = [_read(path, series) for path in paths]
    for path, other in zip(paths[1:], images[1:], strict=True):
        one, two = images[0].geometry, other.geometry
        same = images[0].shape == other.shape and all(
            len(a) == len(b) and np.allclose(a, b, atol=1e-3)
            for a, b in ((one.spacing, two.spacing), (one.origin, two.origin), (one.direction, two.direction))
        )
        if not same:
            raise DataError(
                f"{path}: shape {other.shape}, spacing {two.spacing}, origin {two.origin}; {paths[0]} has "
                f"{images[0].shape}, {one.spacing}, {one.origin}. Expected channels on one grid: resample one"
            )
    if len(images) == 1:
        return images[0]
    return Image(np.concatenate([image.array for image in images]), images[0].geometry)


def _read(path: Path, wanted: str | None) -> Image:
    with files_of(path) as files:
        series: dict[str, list[tuple[File, Dataset]]] = defaultdict(list)
        segmentations = []
        for file in files:
            header = file.read(pixels=False)
            if header is None:
                continue
            if header.get("SOPClassUID") in SEG_CLASSES:
                segmentations.append(file)
            elif "Rows" in header and "Columns" in header:
                series[str(header.get("SeriesInstanceUID", ""))].append((file, header))
        if not series:
            return _read_segmentation(path, segmentations)
        found = _choose(path, series, wanted or _selected(files))
        slices = [each for file, header in found for each in slices_of(file, header)]
        ordered, step = in_order(slices, str(path))
        return Image(_voxels(ordered, str(path))[None], _geometry(ordered, step))


def _read_segmentation(path: Path, files: list[File]) -> Image:
    if len(files) != 1:
        what = f"{len(files)} DICOM-SEG files" if files else "no DICOM image"
        raise DataError(f"{path}: {what}; expected one series of images, or one DICOM-SEG. Correct the case")
    return read_segmentation(files[0])


def _selected(files: Sequence[File]) -> str | None:
    """The series that the case's own `segplug.json` names."""
    for file in files:
        if file.name.replace(":", "/").rpartition("/")[2] == SELECTION:
            try:
                with file.open() as opened:
                    named = json.loads(opened.read(1 << 16))["series"]
                if isinstance(named, str):
                    return named
            except (ValueError, KeyError, TypeError, RecursionError):
                pass
            raise DataError(f'{file.name}: expected {{"series": "<SeriesInstanceUID>"}}. Correct or remove it')
    return None


def _choose(
    path: Path, series: dict[str, list[tuple[File, Dataset]]], wanted: str | None
) -> list[tuple[File, Dataset]]:
    if wanted is None and len(series) == 1:
        return next(iter(series.values()))
    if wanted in series:
        return series[wanted]
    listed = "; ".join(
        f"{uid} ({h.get('Modality', '?')}, {str(h.get('SeriesDescription', '')) or 'no description'}, "
        f"{len(found)} files as {found[0][0].name})"
        for uid, found in series.items()
        for h in [found[0][1]]
    )
    if wanted is not None:
        raise DataError(f"{path}: no series {wanted}. There are: {listed}")
    raise DataError(
        f"{path}: {len(series)} series; expected one. There are: {listed}. Move the others out of the case, or name "
        f'one in a file {SELECTION} beside the images: {{"series": "UID"}}'
    )


def _voxels(slices: Sequence[Slice], case: str) -> NDArray[np.float32]:
    """float32 (z, y, x), real values."""
    shape = (len(slices), int(slices[0].header.Rows), int(slices[0].header.Columns))
    if shape[0] * shape[1] * shape[2] > MOST_VOXELS:
        raise DataError(f"{case}: {shape} voxels by the headers; expected at most {MOST_VOXELS}. Restore the series")
    array = np.empty(shape, np.float32)
    whole: tuple[File, Any] | None = None
    for number, each in enumerate(slices):
        if whole is None or whole[0] is not each.file:
            whole = (each.file, _decode(each))
        stored = whole[1] if each.frame is None or whole[1].ndim == 2 else whole[1][each.frame]
        if stored.shape != shape[1:]:
            raise DataError(f"{each.name}: pixels of shape {stored.shape}; expected {shape[1:]}. Restore the file")
        array[number] = stored * each.slope + each.intercept
    return array


def _decode(each: Slice) -> NDArray[Any]:
    dataset = each.file.read(pixels=True)
    if dataset is None or not any(k in dataset for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DataError(f"{each.name}: no pixels; expected an image. Restore the file")
    try:
        if "ModalityLUTSequence" in dataset:
            from pydicom.pixels.processing import apply_modality_lut

            looked_up: NDArray[Any] = apply_modality_lut(dataset.pixel_array, dataset)
            return looked_up
        pixels: NDArray[Any] = dataset.pixel_array
    except MemoryError:
        raise
    except Exception as error:  # each decoder has its own
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        compressed = syntax is not None and syntax.is_encapsulated
        remedy = (
            "Install what decodes it (pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg), or export the "
            "series uncompressed"
            if compressed
            else "Restore the file"
        )
        name = syntax.name if syntax is not None else "unknown transfer syntax"
        raise DataError(
            f"{each.name}: pixels cannot be decoded ({name}): {str(error).splitlines()[0]}. {remedy}"
        ) from None
    return pixels


def _geometry(slices: Sequence[Slice], step: float) -> Geometry:
    first = slices[0]
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    direction = np.stack([row, column, np.cross(row, column)], axis=1)
    return Geometry(
        spacing=(step, *first.spacing),
        origin=first.position,
        direction=tuple(float(d) for d in direction.ravel()),
        extra={"dicom": _kept(slices)},
    )


def _kept(slices: Sequence[Slice]) -> dict[str, Any]:
    """What a DICOM-SEG of this image has to say about it: a header in DICOM's JSON, and each slice's instance."""
    from pydicom import Dataset

    header, small = slices[0].header, Dataset()
    for keyword in KEPT:
        if keyword in header:
            small[keyword] = header[keyword]
    return {
        "header": small.to_json(),
        "instances": [str(s.header.get("SOPInstanceUID", "")) for s in slices],
        "frames": [0 if s.frame is None else s.frame + 1 for s in slices],
    }
