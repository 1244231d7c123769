"""Arrays, axis order, spacing and geometry: those of the libraries that nnU-Net reads with."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from segplug.errors import DataError
from segplug.runtime.geometry import ASSUMED
from segplug_builtin.readers import (
    first_that_reads,
    read_natural_image,
    read_nibabel,
    read_nibabel_reorient,
    read_simpleitk,
    read_simpleitk_reorient,
    read_tiff_stack,
)

RANDOM = np.random.default_rng(0)
DIRECTION = (0.6, -0.8, 0.0, 0.8, 0.6, 0.0, 0.0, 0.0, 1.0)


def write_itk(
    path: Path, array: Any, spacing: Any = None, origin: Any = None, direction: Any = None, **how: Any
) -> Path:
    image = sitk.GetImageFromArray(array, **how)
    if spacing is not None:
        image.SetSpacing(spacing)
    if origin is not None:
        image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path), True)
    return path


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_volume_has_itks_axis_order(ending: str, tmp_path: Path) -> None:
    array = RANDOM.random((4, 5, 6)).astype(np.float32)
    path = write_itk(tmp_path / f"a{ending}", array, (1.5, 2.0, 3.0), (10.0, -20.0, 30.0), DIRECTION)
    image = read_simpleitk([path])
    assert image.array.dtype == np.float32
    np.testing.assert_array_equal(image.array, array[None])
    assert image.spacing == (3.0, 2.0, 1.5)
    assert image.geometry.origin == pytest.approx((10, -20, 30))
    assert image.geometry.direction == pytest.approx(DIRECTION, abs=1e-6)


@given(
    kind=st.sampled_from(["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]),
    order=st.sampled_from("<>"),
    slope=st.sampled_from([0.0, 1.0, 2.5, -1.0, 1e-3, 1 / 3, float("nan")]),
    intercept=st.sampled_from([0.0, -1024.0, 0.1]),
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_voxels_are_exactly_what_itk_reads(
    kind: str, order: str, slope: float, intercept: float, shape: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Voxels are decoded without ITK (one decompression instead of two); it must not show."""
    array = (np.random.default_rng(1).random(shape) * 100).astype(kind)
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(order + kind))
    header.set_data_shape(shape)
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = slope, intercept, 352
    content = header.binaryblock + bytes(4) + array.astype(order + kind).tobytes(order="F")
    path = tmp_path_factory.mktemp("nifti") / "a.nii.gz"
    path.write_bytes(gzip.compress(content))
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.float32)
    found = read_simpleitk([path]).array
    np.testing.assert_array_equal(found.squeeze(), expected.squeeze())
    assert found.ndim == 4
    if len(shape) == 4 and shape[3] > 1:
        assert found.shape == tuple(reversed(shape))


@given(slope=st.sampled_from([0.0, 1.0, 2.5, 1 / 3]), intercept=st.sampled_from([0.0, -1024.0]))
@settings(max_examples=20, deadline=None)
def test_nibabel_scales_in_float64(slope: float, intercept: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("nifti") / "a.nii"
    image = nibabel.Nifti1Image((RANDOM.random((4, 3, 2)) * 1000).astype(np.int16), np.diag([2.0, 3.0, 4.0, 1.0]))
    nibabel.save(image, path)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(bytes(content))
    found = read_nibabel([path])
    np.testing.assert_array_equal(found.array[0], nibabel.load(path).get_fdata().transpose().astype(np.float32))
    assert found.spacing == (4.0, 3.0, 2.0)


@pytest.mark.parametrize("read", [read_simpleitk, read_nibabel])
def test_a_2d_nifti_is_one_thick_slice(read: Any, tmp_path: Path) -> None:
    array = RANDOM.random((5, 6)).astype(np.float32)
    image = read([write_itk(tmp_path / "a.nii.gz", array, (0.5, 0.25), (3.0, 4.0))])
    np.testing.assert_array_equal(image.array, array[None, None])
    assert image.spacing == (0.5 * 999, 0.25, 0.5)
    assert len(image.geometry.origin) == 2
    assert len(image.geometry.direction) == 4


@pytest.mark.parametrize("read", [read_simpleitk, read_nibabel])
def test_the_fourth_axis_of_a_nifti_is_channels(read: Any, tmp_path: Path) -> None:
    array = RANDOM.random((3, 4, 5, 6)).astype(np.float32)
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array.transpose(), np.diag([-1.5, -2.0, 3.0, 1.0])), path)
    image = read([path])
    np.testing.assert_array_equal(image.array, array)
    assert image.spacing == (3.0, 2.0, 1.5)
    assert image.geometry.direction == pytest.approx(np.eye(3).ravel())


def test_vector_pixels_are_channels(tmp_path: Path) -> None:
    for shape in ((4, 5, 6, 3), (5, 6, 3)):
        array = RANDOM.integers(0, 255, shape).astype(np.uint8)
        image = read_simpleitk([write_itk(tmp_path / f"a{len(shape)}.mha", array, isVector=True)])
        assert image.array.shape == (3, *(shape[:3] if len(shape) == 4 else (1, 5, 6)))
        np.testing.assert_array_equal(image.array[1].squeeze(), array[..., 1])


def test_channels_come_in_the_order_of_their_files(tmp_path: Path) -> None:
    arrays = RANDOM.random((3, 2, 3, 4)).astype(np.float32)
    paths = [write_itk(tmp_path / f"a_{i:04d}.nii.gz", a) for i, a in enumerate(arrays)]
    np.testing.assert_array_equal(read_simpleitk(paths).array, arrays)
    np.testing.assert_array_equal(read_nibabel(paths[::-1]).array, arrays[::-1])


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("shape", {"array": np.zeros((4, 5, 7), np.float32)}),
        ("spacing", {"spacing": (1.0, 1.0, 1.001)}),
        ("origin", {"origin": (0.0, 0.0, 0.3)}),
        ("direction", {"direction": DIRECTION}),
    ],
)
def test_channels_on_different_grids_are_refused(what: str, change: dict[str, Any], tmp_path: Path) -> None:
    array = np.zeros((4, 5, 6), np.float32)
    first = write_itk(tmp_path / "a_0000.nii.gz", array)
    other = write_itk(tmp_path / "a_0001.nii.gz", **{"array": array, **change})
    with pytest.raises(DataError, match=rf"a_0001.nii.gz: {what} .*as in .*a_0000.nii.gz"):
        read_simpleitk([first, other])


def test_rounding_in_headers_is_no_difference(tmp_path: Path) -> None:
    array = np.zeros((40, 50, 60), np.float32)
    first = write_itk(tmp_path / "a_0000.nii.gz", array, (0.7, 0.7, 2.0), (-120.0, 3.0, 4.0), DIRECTION)
    other = write_itk(tmp_path / "a_0001.nii.gz", array, (0.7000001, 0.7, 2.0), (-120.0001, 3.0, 4.0), DIRECTION)
    assert read_simpleitk([first, other]).array.shape == (2, 40, 50, 60)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SAL", "IPL", "ARI"])
def test_reorienting_readers_agree_with_their_libraries(codes: str, tmp_path: Path) -> None:
    array = RANDOM.random((4, 5, 6)).astype(np.float32)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 2.0, 3.0))
    image.SetOrigin((10.0, 20.0, 30.0))
    image = sitk.DICOMOrient(image, codes)
    path = tmp_path / "a.nii.gz"
    sitk.WriteImage(image, str(path))
    turned = sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS")
    found = read_simpleitk_reorient([path])
    np.testing.assert_array_equal(found.array[0], sitk.GetArrayFromImage(turned))
    assert found.spacing == turned.GetSpacing()[::-1]
    canonical = nibabel.as_closest_canonical(nibabel.load(path))
    found = read_nibabel_reorient([path])
    np.testing.assert_array_equal(found.array[0], canonical.get_fdata().transpose().astype(np.float32))
    assert found.spacing == pytest.approx(canonical.header.get_zooms()[::-1])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    spacing=st.tuples(*[st.sampled_from([1.0, 0.5, 0.333, 2.5])] * 3),
    origin=st.tuples(*[st.floats(-50, 50, width=32)] * 3),
    turned=st.sampled_from([np.eye(3), np.diag([-1.0, 1, 1]), np.array([[0.0, 1, 0], [-0.6, 0, 0.8], [0.8, 0, 0.6]])]),
    codes=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    kind=st.sampled_from([np.uint8, np.int16, np.float32]),
    unit=st.sampled_from(["mm", "meter", "unknown"]),
)
def test_the_grid_of_a_nifti_is_what_itk_reads(
    tmp_path_factory: pytest.TempPathFactory,
    shape: list[int],
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    turned: Any,
    codes: tuple[int, int],
    kind: Any,
    unit: str,
) -> None:
    """It is kept for headers that differ in numbers of voxels alone, and must be as if it were not."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turned @ np.diag(spacing), origin
    array = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    image = nibabel.Nifti1Image(array, affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units(unit)  # type: ignore[no-untyped-call]
    image.set_sform(affine, codes[0])  # type: ignore[no-untyped-call]
    image.set_qform(affine, codes[1])  # type: ignore[no-untyped-call]
    file = tmp_path_factory.mktemp("grid") / "case.nii.gz"
    nibabel.save(image, file)
    expected = sitk.ReadImage(str(file))
    if expected.GetDimension() > 1 and expected.GetNumberOfComponentsPerPixel() == 1:
        found = read_simpleitk([file])
        axes = min(expected.GetDimension(), 3)
        assert found.geometry.origin == expected.GetOrigin()[:axes]
        assert found.geometry.spacing[-axes:] == expected.GetSpacing()[:axes][::-1]
        assert np.array_equal(found.array.ravel(), sitk.GetArrayFromImage(expected).ravel().astype(np.float32))
        if expected.GetDimension() < 4:
            assert found.geometry.direction == expected.GetDirection()


def test_both_nifti_libraries_put_a_volume_at_one_place(tmp_path: Path) -> None:
    path = write_itk(tmp_path / "a.nii.gz", RANDOM.random((4, 5, 6)), (1.5, 2, 3), (10, -20, 30), DIRECTION)
    ours, other = read_simpleitk([path]).geometry, read_nibabel([path]).geometry
    assert other.origin == pytest.approx(ours.origin)
    assert other.direction == pytest.approx(ours.direction, abs=1e-6)
    assert other.spacing == pytest.approx(ours.spacing)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4", "?"])
def test_tiff_stacks_and_their_spacing(compression: str | None, kind: str, tmp_path: Path) -> None:
    array = (RANDOM.random((7, 8, 9)) * 2).astype(kind)
    image_file, label_file = tmp_path / "case_0001_0000.tif", tmp_path / "case_0001.tif"
    for path in (image_file, label_file):
        tifffile.imwrite(path, array, compression=compression)
    assumed = read_tiff_stack([image_file])
    assert assumed.spacing == (1.0, 1.0, 1.0)
    assert assumed.geometry.extra[ASSUMED] == ["spacing"]
    (tmp_path / "case_0001.json").write_text(json.dumps({"spacing": [50, 4.6, 4.6]}))
    for path in (image_file, label_file):
        image = read_tiff_stack([path])
        np.testing.assert_array_equal(image.array[0], array)
        assert image.spacing == (50.0, 4.6, 4.6)
        assert not image.geometry.extra


@pytest.mark.parametrize(
    "content", ['{"spacing": [1, 2]}', '{"spacing": [1, 2, 0]}', "[1, 2, 3]", '{"spacing": "1 2 3"}']
)
def test_a_wrong_spacing_file_is_an_error(content: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a_0000.tif", np.zeros((5, 6, 7), np.uint8))
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a.json: spacing .* expected"):
        read_tiff_stack([tmp_path / "a_0000.tif"])


def test_a_tiff_packed_as_pillow_packs_them_is_read(tmp_path: Path) -> None:
    pages = RANDOM.integers(0, 255, (7, 30, 40)).astype(np.uint8)
    first, *rest = (PillowImage.fromarray(page) for page in pages)
    first.save(tmp_path / "a_0000.tif", compression="tiff_lzw", save_all=True, append_images=rest)
    np.testing.assert_array_equal(read_tiff_stack([tmp_path / "a_0000.tif"]).array[0], pages)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_natural_images(ending: str, channels: int, tmp_path: Path) -> None:
    array = RANDOM.integers(0, 255, (8, 9, channels)).astype(np.uint8)
    if channels == 4 and ending == ".bmp":
        pytest.skip("Pillow reads the alpha channel of a bmp as padding")
    PillowImage.fromarray(array.squeeze()).save(tmp_path / f"a{ending}")
    image = read_natural_image([tmp_path / f"a{ending}"])
    np.testing.assert_array_equal(image.array, array.transpose(2, 0, 1)[:, None])
    assert image.spacing == (999, 1, 1)
    assert image.geometry.origin == ()


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_16_bits(ending: str, tmp_path: Path) -> None:
    array = RANDOM.integers(0, 65535, (8, 9)).astype(np.uint16)
    PillowImage.fromarray(array).save(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(read_natural_image([tmp_path / f"a{ending}"]).array[0, 0], array)


def test_palettes_become_colours(tmp_path: Path) -> None:
    picture = PillowImage.fromarray(RANDOM.integers(0, 255, (8, 9, 3)).astype(np.uint8)).quantize(16)
    picture.save(tmp_path / "a.png")
    expected = np.array(picture.convert("RGB")).transpose(2, 0, 1)[:, None]
    np.testing.assert_array_equal(read_natural_image([tmp_path / "a.png"]).array, expected)


def test_the_first_reader_that_reads_wins(tmp_path: Path) -> None:
    write_itk(tmp_path / "a.nii.gz", np.zeros((4, 5, 6), np.uint8))
    write_itk(tmp_path / "a.nii", np.zeros((4, 5, 6), np.uint8))
    write_itk(tmp_path / "a.NRRD", np.zeros((4, 5, 6), np.uint8))
    tifffile.imwrite(tmp_path / "flat.tif", np.zeros((30, 40), np.uint8))
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((20, 30, 40), np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "deep.tiff", np.zeros((20, 30, 40), np.uint8), photometric="minisblack")
    PillowImage.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.xyz").write_bytes(b"x")
    # an affine that is no rotation is more than ITK takes; nnU-Net then goes on to nibabel
    sheared = np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), sheared)
    image.header["qform_code"] = 0
    nibabel.save(image, tmp_path / "sheared.nii.gz")
    expected = {
        "a.nii.gz": "SimpleITKIO",
        "a.nii": "NibabelIO",
        "a.NRRD": "SimpleITKIO",
        "flat.tif": "NaturalImage2DIO",
        "deep.tif": "Tiff3DIO",
        "deep.tiff": "Tiff3DIO",
        "a.png": "NaturalImage2DIO",
        "a.xyz": None,
        "sheared.nii.gz": "NibabelIO",
    }
    assert {name: first_that_reads(tmp_path / name) for name in expected} == expected


@pytest.mark.parametrize("read", [read_simpleitk, read_nibabel, read_simpleitk_reorient, read_nibabel_reorient])
@pytest.mark.parametrize(
    "fields",
    [
        {"datatype": 77},
        {"datatype": 1536, "bitpix": 128},
        {"datatype": 32, "bitpix": 64},
        {"dim": [5, 4, 5, 6, 1, 3, 1, 1]},
        {"dim": [1, 4, 1, 1, 1, 1, 1, 1]},
        {"dim": [3, 4, 5, 0, 1, 1, 1, 1]},
        {"dim": [3, 4, 5, -6, 1, 1, 1, 1]},
        {"dim": [9, 4, 5, 6, 1, 1, 1, 1]},
        {"dim": [3, 4, 5, 7, 1, 1, 1, 1]},
        {"vox_offset": 1e9},
        {"vox_offset": np.nan},
        {"sform_code": 1, "srow_x": [np.nan] * 4},
        {"pixdim": [1, np.nan, 1, 1, 0, 0, 0, 0]},
        {"bitpix": 8},
    ],
    ids=str,
)
def test_headers_beyond_reason_are_no_crash(read: Any, fields: dict[str, Any], tmp_path: Path) -> None:
    """Some libraries make something of some of them; whatever else comes must name the file."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((4, 5, 6))
    header["vox_offset"] = 352
    for name, value in fields.items():
        header[name] = value
    path = tmp_path / "odd.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4 + 4 * 4 * 5 * 6)))
    try:
        assert read([path]).array.size == 120
    except DataError as error:
        assert "odd.nii.gz" in str(error)  # noqa: PT017


def test_real_images(shared: Path) -> None:
    datasets = shared / "datasets"
    file = datasets / "Dataset027_ACDC/imagesTr/patient001_frame01_0000.nii.gz"
    image = read_simpleitk([file])
    np.testing.assert_array_equal(image.array[0], sitk.GetArrayFromImage(sitk.ReadImage(str(file))).astype(np.float32))
    assert image.spacing == pytest.approx((10, 1.5625, 1.5625))
    assert read_natural_image([datasets / "Dataset120_Nuclei/imagesTr/nuclei_000_0000.png"]).array.shape[0] == 3
    assert read_tiff_stack([datasets / "Dataset130_DrosophilaVNC/labelsTr/vnc_0.tif"]).spacing == (50.0, 4.6, 4.6)
