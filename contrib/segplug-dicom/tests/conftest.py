"""DICOM series as a scanner would export them, written by pydicom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT = UID("1.2.840.10008.5.1.4.1.1.2")
MR = UID("1.2.840.10008.5.1.4.1.1.4")


def write_series(
    folder: Path,
    array: NDArray[Any],
    *,
    spacing: tuple[float, float, float] = (2.5, 0.7, 0.8),
    origin: tuple[float, ...] = (-100.0, 40.0, 12.5),
    row: tuple[float, ...] = (1.0, 0.0, 0.0),
    column: tuple[float, ...] = (0.0, 1.0, 0.0),
    slope: float = 1.0,
    intercept: float = -1024.0,
    modality: str = "CT",
    series: str | None = None,
    shear: float = 0.0,
    names: str = "slice_{:03d}.dcm",
) -> list[Path]:
    """Write (z, y, x) stored values, a file per slice; returns the files in the order of slices."""
    folder.mkdir(parents=True, exist_ok=True)
    uid, study, frame = series or generate_uid(), generate_uid(), generate_uid()
    normal = np.cross(row, column)
    files = []
    for number, plane in enumerate(array):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CT if modality == "CT" else MR
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = FileDataset("", Dataset(), file_meta=meta, preamble=bytes(128))
        one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Phantom", "P1", "", ""
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, uid, frame
        one.StudyID, one.StudyDate, one.StudyTime, one.AccessionNumber = "1", "20260101", "120000", ""
        one.ReferringPhysicianName, one.PositionReferenceIndicator = "", ""
        one.Modality, one.SeriesNumber, one.InstanceNumber = modality, 1, number + 1
        one.Rows, one.Columns = plane.shape
        one.PixelSpacing, one.SliceThickness = [spacing[1], spacing[2]], spacing[0]
        one.ImageOrientationPatient = [f"{v:.8f}" for v in (*row, *column)]
        at = np.array(origin) + number * (spacing[0] * normal + shear * np.array(column))
        one.ImagePositionPatient = [f"{v:.6f}" for v in at]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.RescaleSlope, one.RescaleIntercept = slope, intercept
        one.PixelData = np.ascontiguousarray(plane, "<i2").tobytes()
        file = folder / names.format(number)
        one.save_as(file, enforce_file_format=True)
        files.append(file)
    return files


@pytest.fixture
def make_series() -> Callable[..., list[Path]]:
    """See `write_series`."""
    return write_series


@pytest.fixture
def voxels() -> NDArray[np.int16]:
    """(5, 12, 10), each slice and place another value."""
    return np.random.default_rng(0).integers(0, 3000, (5, 12, 10)).astype(np.int16)
