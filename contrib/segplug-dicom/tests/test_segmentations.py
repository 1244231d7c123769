"""DICOM-SEG: written in the image's place, readable by highdicom, pydicom and ourselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.seg import segread
from pydicom import dcmread
from segplug_dicom.images import read_dicom
from segplug_dicom.segmentations import write_dicom_seg

from segplug.errors import DataError
from segplug.model import Geometry, Labels

OBLIQUE = {"row": (0.8, 0.6, 0.0), "column": (-0.36, 0.48, 0.8)}


def labels_of(image: Any) -> Labels:
    array = np.zeros(image.array.shape[1:], np.uint8)
    array[1:3, 2:6, 3:7], array[3, 4:9, 1:4] = 1, 3
    return Labels(array, image.geometry)


@pytest.mark.parametrize("place", [{}, OBLIQUE])
@pytest.mark.parametrize("ending", [".dcm", ".dcm.zip"])
def test_it_is_read_back_in_its_place(make_series: Any, voxels: Any, tmp_path: Path, place: Any, ending: str) -> None:
    make_series(tmp_path / "case", voxels, **place)
    image = read_dicom([tmp_path / "case"])
    written = labels_of(image)
    write_dicom_seg(tmp_path / f"seg{ending}", written)
    back = read_dicom([tmp_path / f"seg{ending}"])
    assert np.array_equal(back.array[0], written.array)
    assert back.geometry.spacing == pytest.approx(image.geometry.spacing, abs=1e-5)
    assert back.geometry.origin == pytest.approx(image.geometry.origin, abs=1e-4)
    assert back.geometry.direction == pytest.approx(image.geometry.direction, abs=1e-5)


def test_others_find_patient_series_and_segments(make_series: Any, voxels: Any, tmp_path: Path) -> None:
    files = make_series(tmp_path / "case", voxels)
    written = labels_of(read_dicom([tmp_path / "case"]))
    write_dicom_seg(tmp_path / "seg.dcm", written)
    source, found = dcmread(files[0]), segread(tmp_path / "seg.dcm")
    assert (found.PatientID, found.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert found.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert found.number_of_segments == 3
    instances = [dcmread(file).SOPInstanceUID for file in files]
    masks = found.get_pixels_by_source_instance(instances)
    for label in (1, 2, 3):
        assert np.array_equal(masks[..., label - 1], written.array == label)


def test_segments_are_called_what_their_labels_are(make_series: Any, voxels: Any, tmp_path: Path) -> None:
    make_series(tmp_path / "case", voxels)
    written = labels_of(read_dicom([tmp_path / "case"]))
    names = {0: "background", 1: "right\tlung", 3: "kidney, " * 12, 4: "spleen"}
    write_dicom_seg(tmp_path / "seg.dcm", written, label_names=names)
    segments = dcmread(tmp_path / "seg.dcm").SegmentSequence
    told = [segment.SegmentLabel for segment in segments]
    # the second has no name, the third is cut where DICOM ends it, and the fourth is in no slice
    assert told == ["right lung", "label 2", ("kidney, " * 12)[:64].strip()]
    assert np.array_equal(read_dicom([tmp_path / "seg.dcm"]).array[0], written.array)


def test_an_image_of_another_format_gets_a_place_too(tmp_path: Path) -> None:
    geometry = Geometry((2.0, 1.0, 1.0), (5.0, 6.0, 7.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    array = np.zeros((3, 4, 5), np.uint8)
    array[1, 2, 3] = 2
    write_dicom_seg(tmp_path / "seg.dcm", Labels(array, geometry))
    back = read_dicom([tmp_path / "seg.dcm"])
    assert np.array_equal(back.array[0], array)
    assert back.geometry.origin == pytest.approx((5.0, 6.0, 7.0))


def test_labels_that_no_segment_can_have(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="segments 1 to 1024"):
        write_dicom_seg(tmp_path / "seg.dcm", Labels(np.full((2, 2, 2), 2000, np.int16), Geometry((1.0, 1.0, 1.0))))
    assert not (tmp_path / "seg.dcm").exists()
