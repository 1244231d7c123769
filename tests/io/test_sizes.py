"""What headers say of an image before it is read."""

from __future__ import annotations

import gzip
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from segplug.errors import DataError
from segplug.kernel import Kernel
from segplug.protocols import ImageSize, SizedReader
from segplug_builtin.formats import nifti
from segplug_builtin.readers import read_natural_image, read_nibabel, read_simpleitk, read_tiff_stack

SHAPE = (6, 7, 8)
NAMES = ("simpleitk", "simpleitk_reorient", "nibabel", "nibabel_reorient", "tiff_stack", "natural_image")


def volume(kind: Any, shape: tuple[int, ...] = SHAPE) -> Any:
    return (np.random.default_rng(0).random(shape) * 200).astype(kind)


def write_itk(path: Path, array: Any, vector: bool = False) -> None:
    image = sitk.GetImageFromArray(array, isVector=vector)
    if image.GetDimension() == 3:
        image.SetSpacing((1.5, 2.0, 3.0))
        image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))  # two axes change places
    sitk.WriteImage(image, str(path), True)


@pytest.mark.parametrize("reader", NAMES[:4])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
def test_volumes(reader: str, ending: str, kind: Any, tmp_path: Path) -> None:
    if "nibabel" in reader and "nii" not in ending:
        pytest.skip("nibabel reads NIfTI alone")
    path = tmp_path / f"case_0000{ending}"
    write_itk(path, volume(kind))
    check(reader, path, {1: 256, 2: 65536}.get(np.dtype(kind).itemsize))


@pytest.mark.parametrize("reader", ["simpleitk", "nibabel"])
@pytest.mark.parametrize("shape", [(7, 8), (3, 6, 7, 8)])
def test_slices_and_several_channels(reader: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    write_itk(tmp_path / "case_0000.nii.gz", volume(np.int16, shape))
    check(reader, tmp_path / "case_0000.nii.gz", 65536)


def test_vectors(tmp_path: Path) -> None:
    write_itk(tmp_path / "case_0000.mha", volume(np.uint8, (*SHAPE, 3)), vector=True)
    check("simpleitk", tmp_path / "case_0000.mha", 256)


def test_nifti_2_is_left_to_reading(tmp_path: Path) -> None:
    path = tmp_path / "case_0000.nii.gz"
    nibabel.Nifti2Image(volume(np.int16), np.eye(4)).to_filename(path)
    assert read_nibabel.size([path]) is None
    assert read_nibabel([path]).array.shape == (1, *SHAPE[::-1])


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "P", "I;16"])
def test_pictures(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "case_0000.png"
    grey = PillowImage.fromarray(volume(np.uint16 if mode == "I;16" else np.uint8, (7, 9)))
    (grey if mode in ("L", "I;16") else grey.convert(mode)).save(path)
    check("natural_image", path, None)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3), (3, 7, 9)])
def test_pictures_as_tiff(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "case_0000.tif"
    tifffile.imwrite(path, volume(np.uint8, shape), photometric="minisblack" if len(shape) == 2 else "rgb")
    check("natural_image", path, 256)


def test_stacks(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "case_0000.tif", volume(np.uint16), photometric="minisblack", compression="zlib")
    (tmp_path / "case.json").write_text('{"spacing": [3, 2, 1.5]}')
    check("tiff_stack", tmp_path / "case_0000.tif", 65536)
    tifffile.imwrite(tmp_path / "flat_0000.tif", volume(np.uint8, (7, 9)), photometric="minisblack")
    with pytest.raises(DataError, match="2 axes"):
        read_tiff_stack.size([tmp_path / "flat_0000.tif"])


def check(reader: str, path: Path, distinct: int | None) -> None:
    found = Kernel(discover=False).registry.build("readers", reader)
    assert isinstance(found, SizedReader)
    size, image = found.size([path]), found([path])
    assert size is not None
    assert size.shape == image.array.shape
    assert size.spacing == pytest.approx(image.spacing)
    assert size.reading >= image.array.nbytes
    assert size.distinct == distinct or distinct is None
    assert size.distinct is None or size.distinct >= np.unique(image.array).size


def test_files_of_channels_are_one_array(tmp_path: Path) -> None:
    paths = [tmp_path / f"case_{channel:04d}.nii.gz" for channel in range(3)]
    for number, path in enumerate(paths):
        write_itk(path, volume(np.int16) + number)
    size, image = read_simpleitk.size(paths), read_simpleitk(paths)
    assert size is not None
    assert size.shape == image.array.shape == (3, *SHAPE)
    assert size.reading >= 4 * image.array.size + image.array.nbytes // 3
    for number, channel in enumerate(image.array):
        np.testing.assert_array_equal(channel, volume(np.int16) + number)
    two = tmp_path / "more_0001.nii.gz"
    write_itk(two, volume(np.int16, (2, *SHAPE)))
    one = tmp_path / "more_0000.nii.gz"
    nibabel.load(two).slicer[..., 0].to_filename(one)
    assert read_nibabel([one, two, one]).array.shape == (4, *SHAPE)


def test_a_missing_file_and_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_simpleitk.size([tmp_path / "case_0000.nii.gz"])
    assert read_natural_image.size([]) is None


@given(
    kind=st.sampled_from(["u1", "<i2", ">i2", "<f4", ">f4", "<f8", "<i8"]),
    scale=st.sampled_from([(1.0, 0.0), (0.0, 0.0), (2.5, -3.0), (float("nan"), 1.0)]),
    compressed=st.booleans(),
    piece=st.integers(400, 900),
    trailing=st.integers(0, 3),
)
def test_voxels_are_the_same_piece_by_piece(
    kind: str, scale: tuple[float, float], compressed: bool, piece: int, trailing: int
) -> None:
    """Pieces end within voxels and behind them."""
    header = nibabel.Nifti1Header(endianness=kind[0] if kind[0] in "<>" else "<")
    header.set_data_dtype(np.dtype(kind).newbyteorder(kind[0] if kind[0] in "<>" else "="))
    header.set_data_shape(SHAPE[::-1])
    header["scl_slope"], header["scl_inter"] = scale
    header["vox_offset"], header["magic"] = 352, b"n+1"
    content = header.binaryblock + bytes(4) + volume(kind).tobytes() + bytes(trailing)
    with tempfile.TemporaryDirectory() as folder, patch.object(nifti, "_PIECE", piece):
        path = Path(folder) / ("a.nii.gz" if compressed else "a.nii")
        path.write_bytes(gzip.compress(content) if compressed else content)
        streamed, whole = nifti._streamed(path), nifti.read_nifti(path)
    assert streamed is not None
    assert whole is not None
    np.testing.assert_array_equal(streamed[1], nifti.scaled_like_itk(whole))
    assert streamed[0].header == whole.header


def test_reading_takes_little_beside_the_image(tmp_path: Path) -> None:
    """What the header promises is kept: 3 MB of int16 that do not shrink."""
    path = tmp_path / "case_0000.nii.gz"
    array = np.random.default_rng(0).integers(-2000, 2000, (60, 160, 160), dtype=np.int16)
    write_itk(path, array)
    size = read_simpleitk.size([path])
    assert isinstance(size, ImageSize)
    read_simpleitk([path])
    tracemalloc.start()
    try:
        read_simpleitk([path])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < array.size * 4 + 3_000_000 <= size.reading
