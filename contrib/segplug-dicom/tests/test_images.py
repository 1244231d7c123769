"""Series to images: values, order and place are what ITK's own DICOM reader gives; what is no stack is told."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, generate_uid
from segplug_dicom.images import read_dicom

from segplug.errors import DataError
from segplug.kernel import Kernel

OBLIQUE = {"row": (0.8, 0.6, 0.0), "column": (-0.36, 0.48, 0.8)}


def by_itk(folder: Path) -> Any:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.mark.parametrize("place", [{}, OBLIQUE, {"row": (-1.0, 0.0, 0.0), "column": (0.0, -1.0, 0.0)}])
@pytest.mark.parametrize("names", ["slice_{:03d}.dcm", "IM{0:d}"])
def test_a_series_is_what_itk_reads(make_series: Any, voxels: Any, tmp_path: Path, place: Any, names: str) -> None:
    make_series(tmp_path / "case", voxels, names=names, slope=2.0, **place)
    found, expected = read_dicom([tmp_path / "case"]), by_itk(tmp_path / "case")
    assert found.array.dtype == np.float32
    assert np.array_equal(found.array[0], sitk.GetArrayFromImage(expected))
    assert found.array[0, 0, 0, 0] == 2.0 * voxels[0, 0, 0] - 1024
    assert found.geometry.spacing == pytest.approx(expected.GetSpacing()[::-1], abs=1e-5)
    assert found.geometry.origin == pytest.approx(expected.GetOrigin(), abs=1e-5)
    assert found.geometry.direction == pytest.approx(expected.GetDirection(), abs=1e-5)


def test_slices_are_ordered_by_their_place_not_by_their_names(make_series: Any, voxels: Any, tmp_path: Path) -> None:
    files = make_series(tmp_path / "case", voxels)
    for number, file in enumerate(files):
        file.rename(file.with_name(f"{9 - number}.dcm"))
    assert np.array_equal(read_dicom([tmp_path / "case"]).array[0], voxels - 1024.0)


def test_a_zip_is_what_its_folder_is(make_series: Any, voxels: Any, tmp_path: Path) -> None:
    make_series(tmp_path / "case", voxels, modality="MR", intercept=0.0)
    (tmp_path / "case" / "README.txt").write_text("not an image")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "case")
    one, two = read_dicom([tmp_path / "case"]), read_dicom([Path(packed)])
    assert np.array_equal(one.array, two.array)
    assert one.geometry == two.geometry


def test_several_series_are_told_and_one_can_be_chosen(make_series: Any, voxels: Any, tmp_path: Path) -> None:
    folder, one, two = tmp_path / "case", generate_uid(), generate_uid()
    make_series(folder / "a", voxels, series=one)
    make_series(folder / "b", voxels + 7, series=two)
    with pytest.raises(DataError, match="2 series; expected one") as told:
        read_dicom([folder])
    assert one in str(told.value)
    assert two in str(told.value)
    assert np.array_equal(read_dicom([folder], series=two).array[0], voxels + 7 - 1024.0)
    (folder / "segplug.json").write_text(json.dumps({"series": one}))
    assert np.array_equal(read_dicom([folder]).array[0], voxels - 1024.0)
    with pytest.raises(DataError, match=r"no series 1\.2\.3"):
        read_dicom([folder], series="1.2.3")


def test_what_is_no_stack_is_told(make_series: Any, voxels: Any, tmp_path: Path) -> None:
    files = make_series(tmp_path / "missing", voxels)
    files[2].unlink()
    with pytest.raises(DataError, match=r"1 missing between .*slice_001.dcm and .*slice_003.dcm"):
        read_dicom([tmp_path / "missing"])

    files = make_series(tmp_path / "twice", voxels)
    copied = dcmread(files[1])
    copied.SOPInstanceUID = generate_uid()
    copied.save_as(files[1].with_name("again.dcm"))
    with pytest.raises(DataError, match="1 slices lie where others do"):
        read_dicom([tmp_path / "twice"])

    make_series(tmp_path / "tilted", voxels, shear=0.6)
    with pytest.raises(DataError, match="gantry tilt"):
        read_dicom([tmp_path / "tilted"])

    files = make_series(tmp_path / "mixed", voxels)
    other = dcmread(files[4])
    other.ImageOrientationPatient = [0, 1, 0, 0, 0, 1]
    other.save_as(files[4])
    with pytest.raises(DataError, match=r"slice_004.dcm: ImageOrientationPatient"):
        read_dicom([tmp_path / "mixed"])


def test_damaged_files_are_named(make_series: Any, voxels: Any, tmp_path: Path) -> None:
    files = make_series(tmp_path / "case", voxels)
    whole = files[3].read_bytes()
    files[3].write_bytes(whole[:-50])
    with pytest.raises(DataError, match=r"slice_003.dcm"):
        read_dicom([tmp_path / "case"])
    files[3].write_bytes(b"something else")
    with pytest.raises(DataError, match=r"slice_003.dcm: not a DICOM file"):
        read_dicom([tmp_path / "case"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no DICOM image"):
        read_dicom([tmp_path / "empty"])
    with pytest.raises(DataError, match="no such file or folder"):
        read_dicom([tmp_path / "nothing"])
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(DataError, match="damaged, not a zip"):
        read_dicom([tmp_path / "bad.zip"])


def test_what_cannot_be_decompressed_says_what_to_install(make_series: Any, voxels: Any, tmp_path: Path) -> None:
    files = make_series(tmp_path / "case", voxels)
    for file in files:
        one = dcmread(file)
        one.file_meta.TransferSyntaxUID = JPEG2000Lossless
        one.PixelData = (
            b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00abcd\xfe\xff\xdd\xe0\x00\x00\x00\x00"
        )
        one["PixelData"].is_undefined_length = True
        one.save_as(file)
    with pytest.raises(DataError, match=r"cannot be decoded \(JPEG 2000.*pip install pylibjpeg"):
        read_dicom([tmp_path / "case"])


def test_a_zip_that_would_fill_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segplug_dicom.sources.MOST_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.dcm.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(5000))
    with pytest.raises(DataError, match="when unpacked"):
        read_dicom([tmp_path / "bomb.dcm.zip"])


def test_channels_are_series_on_one_grid(make_series: Any, voxels: Any, tmp_path: Path) -> None:
    make_series(tmp_path / "t1", voxels)
    make_series(tmp_path / "t2", voxels + 1)
    make_series(tmp_path / "moved", voxels, origin=(0.0, 0.0, 0.0))
    found = read_dicom([tmp_path / "t1", tmp_path / "t2"])
    assert found.array.shape == (2, 5, 12, 10)
    with pytest.raises(DataError, match="Expected channels on one grid"):
        read_dicom([tmp_path / "t1", tmp_path / "moved"])


def test_it_is_chosen_by_the_ending() -> None:
    kernel = Kernel()
    for name in ("case_0000.dcm", "case_0000.dcm.zip", "CASE_0000.DCM"):
        assert kernel.choose("segplug_choose_reader", path=Path(name)) == "dicom"
