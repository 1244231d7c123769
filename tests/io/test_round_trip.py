"""What a writer writes has the geometry of the image exactly, whatever that is, and the labels unchanged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from segplug.errors import DataError
from segplug.model import Geometry, Image, Labels
from segplug_builtin import readers, writers
from segplug_builtin.readers import first_that_reads, read_natural_image, read_simpleitk, read_tiff_stack
from segplug_builtin.writers import write_natural_image, write_simpleitk, write_tiff_stack, writer_for

NIFTI_PAIRS = ["simpleitk", "simpleitk_reorient", "nibabel", "nibabel_reorient"]

# where spacings differ more, ITK takes some sforms for not orthonormal and reads nothing (nor does nnU-Net with it)
spacings = st.tuples(*[st.floats(2.0**-5, 2.0**5, width=32)] * 3)
origins = st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 3)
shapes = st.tuples(*[st.integers(1, 6)] * 3)


@st.composite
def directions(draw: st.DrawFn) -> np.ndarray:
    """Rotations of any angle; half of the time along the axes, swapped and mirrored in any way."""
    if draw(st.booleans()):
        signs = draw(st.sampled_from(list(product((-1.0, 1.0), repeat=3))))
        return np.eye(3)[list(draw(st.sampled_from(list(permutations(range(3))))))] * np.array(signs)[:, None]
    a, b, c = (draw(st.floats(0, 2 * math.pi)) for _ in range(3))
    turn = np.eye(3)
    for axis, angle in enumerate((a, b, c)):
        step = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step[i, i] = step[j, j] = math.cos(angle)
        step[i, j], step[j, i] = -math.sin(angle), math.sin(angle)
        turn = turn @ step
    return turn * draw(st.sampled_from([1.0, -1.0]))


def pair(name: str) -> tuple[Callable[..., Image], Callable[[Path, Labels], None]]:
    return getattr(readers, f"read_{name}"), getattr(writers, f"write_{name}")


def some_labels(image: Image, highest: int = 7) -> Labels:
    values = np.random.default_rng(3).integers(0, highest + 1, image.shape)
    return Labels(values.astype(np.int32), image.geometry)


def through_json(geometry: Geometry) -> Geometry:
    """Geometries are kept with preprocessed cases as JSON."""
    return Geometry(geometry.spacing, geometry.origin, geometry.direction, json.loads(json.dumps(geometry.extra)))


@pytest.mark.parametrize("name", NIFTI_PAIRS)
@given(
    shape=shapes,
    spacing=spacings,
    origin=origins,
    direction=directions(),
    codes=st.sampled_from([(1, 1), (0, 2), (1, 0), (2, 4)]),
)
@settings(max_examples=60, deadline=None)
def test_nifti_headers_come_back_bit_by_bit(
    name: str, shape: tuple, spacing: tuple, origin: tuple, direction: np.ndarray, codes: tuple,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    read, write = pair(name)
    folder = tmp_path_factory.mktemp("nifti")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * spacing, origin
    nifti = nibabel.Nifti1Image(np.zeros(shape, np.float32), affine)
    nifti.set_qform(affine, int(codes[0]))
    nifti.set_sform(affine, int(codes[1]))
    nifti.header["descrip"] = b"patient Jane Doe"
    nibabel.save(nifti, folder / "image.nii.gz")
    image = read([folder / "image.nii.gz"])
    labels = some_labels(image)
    labels = Labels(labels.array, through_json(labels.geometry))
    write(folder / "label.nii.gz", labels)
    back = read([folder / "label.nii.gz"])
    np.testing.assert_array_equal(back.array[0], labels.array)
    assert back.geometry.spacing == image.geometry.spacing
    assert back.geometry.origin == image.geometry.origin
    assert back.geometry.direction == image.geometry.direction
    one, other = (nibabel.load(folder / f).header for f in ("image.nii.gz", "label.nii.gz"))
    for field in (
        "pixdim",
        "qform_code",
        "sform_code",
        "srow_x",
        "srow_y",
        "srow_z",
        "xyzt_units",
        "quatern_b",
        "qoffset_x",
    ):
        np.testing.assert_array_equal(one[field], other[field], err_msg=field)
    assert other["descrip"].item() == b""
    assert other.get_data_dtype() == np.uint8


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("name", ["simpleitk", "simpleitk_reorient"])
@given(shape=shapes, spacing=spacings, origin=origins, direction=directions())
@settings(max_examples=30, deadline=None)
def test_other_itk_formats(
    ending: str, name: str, shape: tuple, spacing: tuple, origin: tuple, direction: np.ndarray,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    read, write = pair(name)
    folder = tmp_path_factory.mktemp("itk")
    source = sitk.GetImageFromArray(np.zeros(shape, np.int16))
    source.SetSpacing(spacing)
    source.SetOrigin(origin)
    source.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(source, str(folder / f"image{ending}"))
    image = read([folder / f"image{ending}"])
    labels = some_labels(image, 300)
    write(folder / f"label{ending}", Labels(labels.array, through_json(labels.geometry)))
    back = read([folder / f"label{ending}"])
    np.testing.assert_array_equal(back.array[0], labels.array)
    one, other = (sitk.ReadImage(str(folder / f"{f}{ending}")) for f in ("image", "label"))
    assert one.GetSize() == other.GetSize()
    # NRRD keeps spacing and direction as one product, which ITK takes apart to the last bit but one
    assert one.GetSpacing() == pytest.approx(other.GetSpacing(), rel=1e-14)
    assert one.GetOrigin() == other.GetOrigin()
    assert one.GetDirection() == pytest.approx(other.GetDirection(), rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("name", ["simpleitk", "nibabel"])
def test_2d_and_4d_nifti(name: str, tmp_path: Path) -> None:
    read, write = pair(name)
    flat = sitk.GetImageFromArray(np.zeros((5, 6), np.float32))
    flat.SetSpacing((0.5, 0.25))
    flat.SetOrigin((3, 4))
    sitk.WriteImage(flat, str(tmp_path / "flat.nii.gz"))
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((6, 5, 4, 3), np.float32), np.diag([1, 2, 3, 1.0])), tmp_path / "deep.nii.gz"
    )
    for file, shape in (("flat.nii.gz", (6, 5)), ("deep.nii.gz", (6, 5, 4))):
        image = read([tmp_path / file])
        labels = some_labels(image)
        write(tmp_path / "label.nii.gz", labels)
        assert nibabel.load(tmp_path / "label.nii.gz").shape == shape
        back = read([tmp_path / "label.nii.gz"])
        np.testing.assert_array_equal(back.array[0], labels.array)
        assert (back.spacing, back.geometry.origin) == (image.spacing, image.geometry.origin)


def test_a_2d_nrrd(tmp_path: Path) -> None:
    flat = sitk.GetImageFromArray(np.zeros((5, 6), np.float32))
    flat.SetSpacing((0.5, 0.25))
    flat.SetDirection((0.6, -0.8, 0.8, 0.6))
    sitk.WriteImage(flat, str(tmp_path / "a.nrrd"))
    labels = some_labels(read_simpleitk([tmp_path / "a.nrrd"]))
    write_simpleitk(tmp_path / "b.nrrd", labels)
    written = sitk.ReadImage(str(tmp_path / "b.nrrd"))
    assert written.GetSpacing() == (0.5, 0.25)
    assert written.GetDirection() == pytest.approx((0.6, -0.8, 0.8, 0.6))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), labels.array[0])


@pytest.mark.parametrize(("name", "byte_order"), [("simpleitk", ">"), ("nibabel", ">"), ("nibabel", "nifti2")])
def test_big_endian_and_nifti2(name: str, byte_order: str, tmp_path: Path) -> None:
    read, write = pair(name)
    affine = np.diag([-1.5, -2, 3, 1])
    if byte_order == "nifti2":
        nibabel.save(nibabel.Nifti2Image(np.zeros((6, 5, 4), np.int16), affine), tmp_path / "a.nii")
    else:
        header = nibabel.Nifti1Header(endianness=">")
        nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 4), ">i2"), affine, header), tmp_path / "a.nii")
    labels = some_labels(read([tmp_path / "a.nii"]), 300)
    write(tmp_path / "b.nii", labels)
    back = nibabel.load(tmp_path / "b.nii")
    assert type(back) is type(nibabel.load(tmp_path / "a.nii"))
    np.testing.assert_array_equal(back.get_fdata().transpose(), labels.array)
    np.testing.assert_array_equal(back.affine, nibabel.load(tmp_path / "a.nii").affine)


def test_tiff_stacks_bring_their_spacing(tmp_path: Path) -> None:
    """The framework gives a passing name and renames the stack; the spacing file must have the final name."""
    image = Image(np.zeros((1, 4, 5, 6), np.float32), Geometry((50.0, 4.6, 4.6)))
    labels = some_labels(image, 300)
    from segplug.runtime.files import replacing

    with replacing(tmp_path / "case_7.tif") as partial:
        write_tiff_stack(partial, labels)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["case_7.json", "case_7.tif"]
    back = read_tiff_stack([tmp_path / "case_7.tif"])
    np.testing.assert_array_equal(back.array[0], labels.array)
    assert back.spacing == (50.0, 4.6, 4.6)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("highest", [1, 254, 255, 4000])
def test_natural_label_maps(ending: str, highest: int, tmp_path: Path) -> None:
    image = Image(np.zeros((3, 1, 5, 4), np.float32), Geometry((999.0, 1.0, 1.0)))
    labels = some_labels(image, highest)
    labels.array[0, 0, 0] = highest
    path = tmp_path / f"a{ending}"
    if ending == ".bmp" and highest >= 255:
        with pytest.raises(DataError, match="does not fit this format"):
            write_natural_image(path, labels)
        return
    write_natural_image(path, labels)
    np.testing.assert_array_equal(read_natural_image([path]).array[0], labels.array)
    if ending == ".png":
        with PillowImage.open(path) as written:
            assert written.mode == ("L" if highest < 255 else "I;16")


def test_labels_are_written_as_small_as_nnunet_writes_them(tmp_path: Path) -> None:
    geometry = Geometry((1.0, 1.0, 1.0))
    for highest, kind in ((0, "u1"), (254, "u1"), (255, "u2"), (65535, "u2"), (65536, "u4")):
        write_simpleitk(tmp_path / "a.nrrd", Labels(np.full((2, 3, 4), highest, np.int64), geometry))
        assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nrrd"))).dtype == np.dtype(kind)
    with pytest.raises(DataError, match="label -1"):
        write_simpleitk(tmp_path / "a.nrrd", Labels(np.full((2, 3, 4), -1), geometry))


@pytest.mark.parametrize("name", NIFTI_PAIRS)
def test_geometry_of_another_reader_is_written_too(name: str, tmp_path: Path) -> None:
    """A plugin's reader need know nothing of NIfTI headers: spacing, origin and direction in ITK's axes do."""
    direction = (0.6, -0.8, 0.0, 0.8, 0.6, 0.0, 0.0, 0.0, 1.0)
    geometry = Geometry((3.0, 2.0, 1.5), (10.0, -20.0, 30.0), direction)
    labels = Labels(np.random.default_rng(0).integers(0, 3, (4, 5, 6)), geometry)
    _, write = pair(name)
    write(tmp_path / "a.nii.gz", labels)
    back = read_simpleitk([tmp_path / "a.nii.gz"])
    np.testing.assert_array_equal(back.array[0], labels.array)
    assert back.spacing == pytest.approx(geometry.spacing)
    assert back.geometry.origin == pytest.approx(geometry.origin)
    assert back.geometry.direction == pytest.approx(direction, abs=1e-6)


def test_labels_of_another_shape_are_refused(tmp_path: Path) -> None:
    write_simpleitk(tmp_path / "a.nii.gz", Labels(np.zeros((4, 5, 6), int), Geometry((1.0, 1.0, 1.0))))
    geometry = read_simpleitk([tmp_path / "a.nii.gz"]).geometry
    with pytest.raises(DataError, match=r"shape \(4, 5, 7\).*\(4, 5, 6\)"):
        write_simpleitk(tmp_path / "b.nii.gz", Labels(np.zeros((4, 5, 7), int), geometry))


def test_the_same_labels_give_the_same_file(tmp_path: Path) -> None:
    labels = Labels(
        np.random.default_rng(0).integers(0, 3, (4, 5, 6)),
        Geometry((1.0, 1.0, 1.0), (0, 0, 0), tuple(np.eye(3).ravel())),
    )
    write_simpleitk(tmp_path / "a.nii.gz", labels)
    labels = Labels(labels.array, read_simpleitk([tmp_path / "a.nii.gz"]).geometry)
    files = [tmp_path / "b.nii.gz", tmp_path / "c.nii.gz"]
    for file in files:
        write_simpleitk(file, labels)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("file", "writer"),
    [
        ("a.nii.gz", "SimpleITKIO"),
        ("a.nii", "SimpleITKIO"),
        ("A.TIF", "Tiff3DIO"),
        ("a.png", "NaturalImage2DIO"),
        ("a.dcm", None),
    ],
)
def test_a_writer_by_file_name(file: str, writer: str | None) -> None:
    assert writer_for(Path(file)) == writer


@pytest.mark.parametrize(
    "case",
    [
        "Dataset004_Hippocampus/labelsTr/hippocampus_001.nii.gz",
        "Dataset027_ACDC/labelsTr/patient001_frame01.nii.gz",
        "Dataset042_BraTS2015/labelsTr/pat0003.nii.gz",
        "Dataset120_Nuclei/labelsTr/nuclei_000.png",
        "Dataset130_DrosophilaVNC/labelsTr/vnc_0.tif",
    ],
)
def test_real_label_maps(case: str, shared: Path, tmp_path: Path) -> None:
    file = shared / "datasets" / case
    name: Any = {"SimpleITKIO": "simpleitk", "NaturalImage2DIO": "natural_image", "Tiff3DIO": "tiff_stack"}[
        first_that_reads(file) or ""
    ]
    read, write = pair(name)
    original = read([file])
    write(tmp_path / file.name, Labels(original.array[0].astype(np.int16), original.geometry))
    back = read([tmp_path / file.name])
    np.testing.assert_array_equal(back.array, original.array)
    one, other = (
        {k: getattr(g, k) for k in ("spacing", "origin", "direction")} for g in (back.geometry, original.geometry)
    )
    assert one == other
