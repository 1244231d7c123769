"""DICOM-SEG: label maps written for others, and read as label maps."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import Geometry, Image, Labels
from segplug_dicom.sources import File

if TYPE_CHECKING:
    from pydicom import Dataset

SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage."""

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
MOST_SEGMENTS = 1024
LONGEST_NAME = 64
"""Characters of a segment's label (value representation LO)."""


def write_dicom_seg(path: Path, labels: Labels, *, label_names: Mapping[int, str] | None = None) -> None:
    """See `segplug.protocols.Writer`: a binary DICOM-SEG whose segment numbers are the labels.

    Every plane of the image has its frame, so that the file tells the whole grid. Patient, study, frame of reference
    and the instances are those of the series that was read; of an image of another format they are made up.

    Args:
        path: its ending `.zip` puts the file into a zip.
        label_names: label -> what its segment is called, shortened to the 64 characters that DICOM allows; a label
            without a name is called `label N`.

    Raises:
        DataError: labels below 0 or above 1024, which no segment can have.
    """
    array = np.asarray(labels.array)
    top = int(array.max(initial=0))
    if int(array.min(initial=0)) < 0 or top > MOST_SEGMENTS:
        raise DataError(
            f"{path}: labels from {array.min()} to {top}; a DICOM-SEG has segments 1 to {MOST_SEGMENTS}. "
            "Renumber the labels, or write another format"
        )
    with warnings.catch_warnings():  # patients are called what the images call them
        warnings.filterwarnings("ignore", "The string .* is unlikely to represent the intended person name")
        whole = np.ascontiguousarray(array, np.uint8 if top < 256 else np.uint16)
        made = _segmentation(labels, whole, _names(top, label_names))
    if path.name.lower().endswith(".zip"):
        buffer = io.BytesIO()
        made.save_as(buffer)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("segmentation.dcm", buffer.getvalue())
    else:
        made.save_as(path)


def _names(top: int, label_names: Mapping[int, str] | None) -> list[str]:
    """Of the segments 1, 2, ..., up to the highest label in the array."""
    known = {label: " ".join(name.split()) for label, name in (label_names or {}).items()}
    return [(known.get(label) or f"label {label}")[:LONGEST_NAME].strip() for label in range(1, max(1, top) + 1)]


def _segmentation(labels: Labels, array: NDArray[Any], names: Sequence[str]) -> Any:
    from highdicom import (
        AlgorithmIdentificationSequence,
        PixelMeasuresSequence,
        PlaneOrientationSequence,
        PlanePositionSequence,
    )
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    from segplug import __version__

    geometry = labels.geometry
    direction = np.array(geometry.direction if len(geometry.direction) == 9 else np.eye(3)).reshape(3, 3)
    origin = np.array(geometry.origin if len(geometry.origin) == 3 else np.zeros(3))
    positions = [origin + z * geometry.spacing[0] * direction[:, 2] for z in range(len(array))]
    orientation = [*direction[:, 0], *direction[:, 1]]
    sources = _sources(geometry, array.shape, positions, orientation)
    algorithm = AlgorithmIdentificationSequence(
        name="segplug", version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.AnatomicalStructure,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(names, start=1)
    ]
    return Segmentation(
        source_images=sources,
        pixel_array=array,
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="segplug",
        manufacturer_model_name="segplug-dicom",
        software_versions=__version__,
        device_serial_number="0",
        pixel_measures=PixelMeasuresSequence(
            pixel_spacing=geometry.spacing[1:],
            slice_thickness=geometry.spacing[0],
            spacing_between_slices=geometry.spacing[0],
        ),
        plane_orientation=PlaneOrientationSequence("PATIENT", orientation),
        plane_positions=[PlanePositionSequence("PATIENT", position.tolist()) for position in positions],
        omit_empty_frames=False,
        content_label="SEGMENTATION",
        transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
    )


def _sources(
    geometry: Geometry, shape: tuple[int, ...], positions: list[NDArray[Any]], orientation: list[float]
) -> list[Dataset]:
    """Headers of the images that were segmented, a slice each."""
    from pydicom import Dataset
    from pydicom.uid import generate_uid

    known = geometry.extra.get("dicom", {})
    common = Dataset.from_json(known["header"]) if known else Dataset()
    made_up = {
        "PatientName": "",
        "PatientID": "",
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyInstanceUID": generate_uid(),
        "StudyID": "",
        "StudyDate": "",
        "StudyTime": "",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "FrameOfReferenceUID": generate_uid(),
        "PositionReferenceIndicator": "",
        "SOPClassUID": CT_IMAGE,
        "SeriesInstanceUID": generate_uid(),
        "Modality": "CT",
        "SliceThickness": geometry.spacing[0],
    }
    for keyword, value in made_up.items():
        if keyword not in common:
            setattr(common, keyword, value)
    common.Rows, common.Columns = shape[1:]
    common.PixelSpacing = [float(f"{s:.10g}") for s in geometry.spacing[1:]]
    common.ImageOrientationPatient = [float(f"{c:.10g}") for c in orientation]
    instances = known.get("instances") or [generate_uid() for _ in positions]
    sources = []
    for number, (instance, position) in enumerate(zip(instances, positions, strict=True), start=1):
        one = Dataset()
        one.update(common)
        one.SOPInstanceUID, one.InstanceNumber = instance or generate_uid(), number
        one.ImagePositionPatient = [float(f"{p:.10g}") for p in position]
        sources.append(one)
    return sources


def read_segmentation(file: File) -> Image:
    """A DICOM-SEG as a label map of its segment numbers: float32 (1, z, y, x).

    Raises:
        DataError: it is damaged, its segments overlap, or it is no stack.
    """
    from highdicom.seg import Segmentation

    dataset = file.read(pixels=True)
    try:
        segmentation = Segmentation.from_dataset(dataset, copy=False)  # type: ignore[arg-type]
        volume = segmentation.get_volume(combine_segments=True)
    except MemoryError:
        raise
    except Exception as error:  # highdicom raises what it meets
        raise DataError(
            f"{file.name}: cannot be read as a label map: {type(error).__name__}: {str(error).splitlines()[0:1]}. "
            "Expected a DICOM-SEG of one stack whose segments do not overlap"
        ) from None
    matrix = np.asarray(volume.affine)
    spacing = tuple(float(s) for s in np.linalg.norm(matrix[:3, :3], axis=0))
    axes = matrix[:3, :3] / spacing  # columns: of slices, rows, columns
    direction = np.stack([axes[:, 2], axes[:, 1], axes[:, 0]], axis=1)
    array, origin = volume.array, matrix[:3, 3]
    if np.linalg.det(direction) < 0:  # slices run against the normal
        array, origin = array[::-1], origin + matrix[:3, 0] * (len(array) - 1)
        direction[:, 2] *= -1
    return Image(
        np.ascontiguousarray(array, np.float32)[None],
        Geometry(spacing, tuple(float(o) for o in origin), tuple(float(d) for d in direction.ravel())),
    )
