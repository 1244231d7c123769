"""A file that is not whole is an error that names it, in every format; never an image."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from segplug.errors import DataError
from segplug_builtin.formats.damage import gunzip
from segplug_builtin.readers import (
    first_that_reads,
    read_natural_image,
    read_nibabel,
    read_nibabel_reorient,
    read_simpleitk,
    read_simpleitk_reorient,
    read_tiff_stack,
)

VOLUME = (np.random.default_rng(0).random((6, 7, 8)) * 1000).astype(np.int16)
ITK = (read_simpleitk, read_simpleitk_reorient)
NIFTI = (*ITK, read_nibabel, read_nibabel_reorient)


def itk_file(path: Path, compressed: bool = True) -> bytes:
    image = sitk.GetImageFromArray(VOLUME)
    image.SetSpacing((1.5, 2.0, 3.0))
    sitk.WriteImage(image, str(path), compressed)
    return path.read_bytes()


def picture_file(path: Path) -> bytes:
    PillowImage.fromarray((VOLUME[:3] % 256).astype(np.uint8).transpose(1, 2, 0).copy()).save(path)
    return path.read_bytes()


def stack_file(path: Path, compressed: bool = True) -> bytes:
    tifffile.imwrite(path, VOLUME, compression="zlib" if compressed else None, photometric="minisblack")
    return path.read_bytes()


FORMATS: dict[str, tuple[str, Callable[[Path], bytes], tuple[Callable, ...]]] = {
    "nii.gz": (".nii.gz", itk_file, NIFTI),
    "nii": (".nii", itk_file, NIFTI),
    "nrrd": (".nrrd", itk_file, ITK),
    "raw nrrd": (".nrrd", lambda p: itk_file(p, False), ITK),
    "mha": (".mha", itk_file, ITK),
    "raw mha": (".mha", lambda p: itk_file(p, False), ITK),
    "gipl": (".gipl", itk_file, ITK),
    "png": (".png", picture_file, (read_natural_image,)),
    "bmp": (".bmp", picture_file, (read_natural_image,)),
    "tif": (".tif", stack_file, (read_tiff_stack,)),
    "raw tif": (".tif", lambda p: stack_file(p, False), (read_tiff_stack,)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_an_error_wherever_it_ends(name: str, tmp_path: Path) -> None:
    ending, write, readers = FORMATS[name]
    path = tmp_path / f"case_0000{ending}"
    whole = write(path)
    for read in readers:
        assert read([path]).array.size, read
    needed = len(whole) - (16 if "tif" in name else 0)  # tifffile ends a file with some unused bytes
    for share in (0, 0.001, 0.02, 0.3, 0.5, 0.9, 0.99, 1):
        path.write_bytes(whole[: min(int(needed * share), needed - 1)])
        for read in readers:
            with pytest.raises(
                DataError, match=r"case_0000.*(truncated|empty|cannot be read|damaged|no NIfTI|no TIFF)"
            ):
                read([path])
        assert first_that_reads(path) is None


@pytest.mark.parametrize("name", ["nii.gz", "png"])
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_flipped_bit_is_an_error_or_changes_nothing(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every bit of these formats is under a checksum, but for a few of no meaning (time stamp, system)."""
    ending, write, readers = FORMATS[name]
    path = tmp_path_factory.mktemp("flip") / f"case_0000{ending}"
    whole = bytearray(write(path))
    expected = readers[0]([path])
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(whole))
    for read in readers[:1]:
        try:
            found = read([path])
        except DataError as error:
            assert path.name in str(error)  # noqa: PT017
        else:
            np.testing.assert_array_equal(found.array, expected.array)
            assert found.geometry == expected.geometry


@pytest.mark.parametrize(("name", "skip"), [("nrrd", 600), ("mha", 400), ("tif", 300)])
def test_damaged_voxels_of_compressed_formats_are_an_error(name: str, skip: int, tmp_path: Path) -> None:
    ending, write, readers = FORMATS[name]
    path = tmp_path / f"case_0000{ending}"
    whole = write(path)
    expected = readers[0]([path]).array
    refused = 0
    for position in range(skip, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0x40
        path.write_bytes(bytes(damaged))
        try:
            found = readers[0]([path]).array
        except DataError:
            refused += 1
        else:  # what lies between the voxels of a TIFF
            np.testing.assert_array_equal(found, expected)
    assert refused > 20


def test_gunzip_takes_several_members_and_padding_and_nothing_else(tmp_path: Path) -> None:
    first, second = gzip.compress(b"one "), gzip.compress(b"two")
    assert gunzip(first + second, tmp_path) == b"one two"
    assert gunzip(first + bytes(100), tmp_path) == b"one "
    with pytest.raises(DataError, match="stand behind the end"):
        gunzip(first + b"rest", tmp_path)
    with pytest.raises(DataError, match="truncated"):
        gunzip(first + second[:-1], tmp_path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_another_format_under_a_nifti_name_is_named(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"case_0000{ending}"
    picture_file(tmp_path / "x.png")
    path.write_bytes((tmp_path / "x.png").read_bytes())
    for read in NIFTI[:2]:
        with pytest.raises(DataError, match=r"case_0000.*a PNG image; expected a NIfTI file"):
            read([path])


def test_uncompressed_nifti_named_gz_is_read(tmp_path: Path) -> None:
    """ITK and nibabel do, so data sets with such files work in nnU-Net."""
    itk_file(tmp_path / "a.nii")
    path = (tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_simpleitk([path]).array[0], VOLUME)


@pytest.mark.parametrize("read", [*NIFTI, read_tiff_stack, read_natural_image])
def test_a_missing_file_is_named(read: Callable, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere_0000.*no such file"):
        read([tmp_path / "nowhere_0000.nii.gz"])


def test_a_name_that_is_not_utf8_is_an_error_and_not_the_end_of_the_program(tmp_path: Path) -> None:
    """SimpleITK's C++ part aborts on it."""
    for read in NIFTI:
        with pytest.raises(DataError, match="not UTF-8"):
            read([tmp_path / "a\udcff_0000.nii.gz"])
