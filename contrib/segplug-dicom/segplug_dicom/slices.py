"""Slices of a series, of single-frame files and of enhanced multi-frame ones, in one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segplug.errors import DataError
from segplug_dicom.sources import File

if TYPE_CHECKING:
    from pydicom import Dataset

EQUAL_COSINES = 1e-4
"""Direction cosines that differ by less are the same; scanners write six digits or fewer."""

EVEN_STEPS = 0.02
"""Share of the slice distance by which steps may differ: positions are rounded in files."""

STRAIGHT = 0.02
"""Sideways shift per step, as a share of the slice distance, from which a stack is sheared (a tilt of 1.1 degrees)."""


@dataclass(frozen=True)
class Slice:
    """One plane.

    Args:
        frame: its number in a multi-frame file, else None.
        position: of its first voxel, (x, y, z) in mm.
        orientation: direction cosines along a row and along a column.
        spacing: between rows and between columns, mm.
        thickness: mm, or 0 where the file does not say.
        slope, intercept: from stored to real values.
    """

    file: File
    header: Dataset
    frame: int | None
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float
    slope: float
    intercept: float

    @property
    def name(self) -> str:
        return self.file.name if self.frame is None else f"{self.file.name} (frame {self.frame + 1})"


def slices_of(file: File, header: Dataset) -> list[Slice]:
    """The planes of one file.

    Raises:
        DataError: it does not say where they lie, or is not grey.
    """
    if header.get("SamplesPerPixel", 1) != 1:
        raise DataError(f"{file.name}: {header.SamplesPerPixel} samples per pixel (colour); expected a grey image")
    multi = "PerFrameFunctionalGroupsSequence" in header
    count = int(header.get("NumberOfFrames", 1) or 1)
    if count > 1 and not multi:
        raise DataError(
            f"{file.name}: {count} frames without functional groups; expected a position for each. "
            "Only enhanced multi-frame files say where their frames lie"
        )
    if multi and len(header.PerFrameFunctionalGroupsSequence) != count:
        found = len(header.PerFrameFunctionalGroupsSequence)
        raise DataError(f"{file.name}: functional groups of {found} frames; expected {count}. Restore the file")
    try:
        return [_slice(file, header, frame if multi else None) for frame in range(count)]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(
            f"{file.name}: does not say where its voxels lie ({error}); expected ImagePositionPatient, "
            "ImageOrientationPatient and PixelSpacing. Export the series anew"
        ) from None


def _slice(file: File, header: Dataset, frame: int | None) -> Slice:
    def part(sequence: str, keyword: str, default: Any = None) -> Any:
        """A value of a frame: its own functional group, the shared one, or the header."""
        places: list[Any] = [header]
        if frame is not None:
            shared = header.get("SharedFunctionalGroupsSequence") or [{}]
            groups = (header.PerFrameFunctionalGroupsSequence[frame], shared[0])
            places = [g[sequence][0] for g in groups if sequence in g] + places
        value = next((p.get(keyword) for p in places if p.get(keyword) is not None), default)
        if value is None:
            raise KeyError(f"no {keyword}")
        return value

    position = _numbers(part("PlanePositionSequence", "ImagePositionPatient"), 3)
    orientation = _numbers(part("PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    spacing = _numbers(part("PixelMeasuresSequence", "PixelSpacing"), 2)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3):
        raise ValueError(f"ImageOrientationPatient {list(orientation)} is no pair of unit vectors at right angles")
    if min(spacing) <= 0:
        raise ValueError(f"PixelSpacing {list(spacing)}")
    transformation = "PixelValueTransformationSequence"
    return Slice(
        file,
        header,
        frame,
        position,
        orientation,
        spacing,
        float(part("PixelMeasuresSequence", "SliceThickness", 0.0)),
        float(part(transformation, "RescaleSlope", 1.0)),
        float(part(transformation, "RescaleIntercept", 0.0)),
    )


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    numbers = tuple(float(v) for v in values)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"{list(numbers)} where {count} numbers are expected")
    return numbers


def in_order(slices: Sequence[Slice], case: str) -> tuple[list[Slice], float]:
    """Sort slices along their normal and find their distance in mm (a single slice's thickness, or 1).

    Raises:
        DataError: they are not one rectangular, evenly spaced stack.
    """
    first = slices[0]
    for other in slices[1:]:
        _require_same_planes(first, other)
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    ordered = sorted(slices, key=lambda s: (float(normal @ np.array(s.position)), s.name))
    positions = np.array([s.position for s in ordered])
    if len(ordered) == 1:
        return ordered, first.thickness or 1.0
    along = positions @ normal
    steps = np.diff(along)
    step = float(np.median(steps))
    same = [i for i, d in enumerate(steps) if d <= max(1e-3, EVEN_STEPS * step)]
    if same:
        one, two = ordered[same[0]], ordered[same[0] + 1]
        raise DataError(
            f"{case}: {len(same)} slices lie where others do, as {one.name} and {two.name} at "
            f"{_point(one.position)}; expected one slice per place. Remove the copies, or, of several phases or "
            "echoes, all but one"
        )
    uneven = np.abs(steps - step) > EVEN_STEPS * step + 1e-3
    if uneven.any():
        at = int(np.flatnonzero(uneven)[0])
        missing = round(float(steps[at]) / step) - 1
        whole = missing > 0 and abs(float(steps[at]) - (missing + 1) * step) < EVEN_STEPS * step * (missing + 1)
        why = f"{missing} missing" if whole else "unevenly spaced"
        raise DataError(
            f"{case}: slices {why} between {ordered[at].name} and {ordered[at + 1].name}: {steps[at]:.4g} mm apart; "
            f"expected {step:.4g} mm throughout. Restore missing slices, or resample the series to even steps"
        )
    step = float(steps.mean())
    sideways = np.linalg.norm((positions[-1] - positions[0]) - (along[-1] - along[0]) * normal)
    if sideways > STRAIGHT * float(along[-1] - along[0]):
        angle = np.degrees(np.arctan2(sideways, along[-1] - along[0]))
        raise DataError(
            f"{case}: the slices are sheared by {angle:.1f} degrees (gantry tilt), from {ordered[0].name} to "
            f"{ordered[-1].name}; expected a stack at right angles. Correct the tilt, as dcm2niix does, and give the "
            "result"
        )
    return ordered, step


def _require_same_planes(one: Slice, two: Slice) -> None:
    compared: list[tuple[str, Any, Any, bool]] = []
    for keyword in ("Rows", "Columns", "FrameOfReferenceUID"):
        values = one.header.get(keyword), two.header.get(keyword)
        compared.append((keyword, *values, values[0] == values[1]))
    alike = np.allclose(one.orientation, two.orientation, atol=EQUAL_COSINES)
    compared.append(("ImageOrientationPatient", list(one.orientation), list(two.orientation), bool(alike)))
    alike = np.allclose(one.spacing, two.spacing, rtol=1e-4)
    compared.append(("PixelSpacing", list(one.spacing), list(two.spacing), bool(alike)))
    for keyword, a, b, equal in compared:
        if not equal:
            raise DataError(
                f"{two.name}: {keyword} {b}; {one.name} of the same series has {a}. Expected slices of one stack. "
                "Remove those that do not belong to it, as localizers"
            )


def _point(position: Sequence[float]) -> str:
    return f"({', '.join(f'{p:.2f}' for p in position)})"
