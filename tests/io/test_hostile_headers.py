"""Headers that ask for more than their file holds, or contradict themselves: told, in little memory, with no noise."""

from __future__ import annotations

import gzip
import math
import struct
import tracemalloc
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from segplug.errors import DataError
from segplug.runtime.geometry import DOUBTS
from segplug_builtin.formats.itk import surely_reads
from segplug_builtin.readers import read_nibabel, read_simpleitk, read_tiff_stack

VOLUME = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
VAST = 3000, 3000, 3000  # 27 GB, should somebody believe it
TIFF_TAGS = {256: 10, 257: 10, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 10, 279: 100}


def tiff(changes: dict[int, int]) -> bytes:
    """A classic TIFF of one page of 10 x 10 bytes, with these tags changed."""
    tags = {**TIFF_TAGS, **changes}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 108) + bytes(100) + struct.pack("<H", len(tags)) + entries + bytes(4)


def nifti(version: int) -> bytes:
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    content = bytearray(kind(np.zeros((2, 3, 4), np.uint8), np.eye(4)).to_bytes())
    if version == 1:
        struct.pack_into("<3h", content, 42, *VAST)
    else:
        struct.pack_into("<3q", content, 24, *VAST)
    return bytes(content)


def nrrd(encoding: str) -> bytes:
    sizes = " ".join(map(str, VAST))
    return f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {sizes}\nencoding: {encoding}\nendian: little\n\n".encode()


def mha(compressed: bool) -> bytes:
    return (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = {compressed}\nElementSpacing = 1 1 1\n"
        f"DimSize = {' '.join(map(str, VAST))}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    ).encode()


WIDE = {256: 100_000, 257: 200_000, 278: 200_000}
HOSTILE = {
    "plain.tif": (tiff(WIDE), read_tiff_stack),
    "zlib.tif": (tiff({**WIDE, 259: 8}), read_tiff_stack),
    "lzw.tif": (tiff({**WIDE, 259: 5}), read_tiff_stack),
    "samples.tif": (tiff({256: 1000, 257: 1000, 278: 1000, 277: 60_000}), read_tiff_stack),
    "rows.tif": (tiff({257: 2**31 - 1, 278: 1}), read_tiff_stack),
    "one.nii": (nifti(1), read_nibabel),
    "one.nii.gz": (gzip.compress(nifti(1)), read_simpleitk),
    "two.nii": (nifti(2), read_nibabel),
    "two.nii.gz": (gzip.compress(nifti(2)), read_simpleitk),
    "raw.nrrd": (nrrd("raw") + bytes(100), read_simpleitk),
    "gzip.nrrd": (nrrd("gzip") + gzip.compress(bytes(100)), read_simpleitk),
    "ascii.nrrd": (nrrd("ascii") + b"0 " * 100, read_simpleitk),
    "raw.mha": (mha(False) + bytes(100), read_simpleitk),
    "zlib.mha": (mha(True) + zlib.compress(bytes(100)), read_simpleitk),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_header_cannot_ask_for_more_than_the_file_can_hold(name: str, tmp_path: Path) -> None:
    content, read = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"{name}: (damaged|truncated): .*promises \d{{11,}}"):
            read([path])
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_the_limit_lets_the_highest_compression_pass(tmp_path: Path) -> None:
    """Zeros compress best: nothing that a program writes may be taken for damage."""
    zeros = np.zeros((40, 500, 500), np.uint8)
    for name, compression in (("plain.tif", None), ("zlib.tif", "zlib")):
        tifffile.imwrite(tmp_path / name, zeros, compression=compression, photometric="minisblack")
        assert read_tiff_stack([tmp_path / name]).array.shape == (1, 40, 500, 500)
    tifffile.imwrite(tmp_path / "bits.tif", zeros.astype(bool), photometric="minisblack")
    assert read_tiff_stack([tmp_path / "bits.tif"]).array.shape == (1, 40, 500, 500)
    for ending in (".nrrd", ".mha", ".nii.gz"):
        path = tmp_path / f"zeros{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(zeros), str(path), True)
        assert read_simpleitk([path]).array.shape == (1, 40, 500, 500)


def changed_nifti(path: Path, **fields: object) -> Path:
    nibabel.save(nibabel.Nifti1Image(VOLUME.transpose(), np.diag([1.0, 2, 3, 1])), path)
    content = bytearray(path.read_bytes())
    places = {"qform": (252, "h"), "sform": (254, "h"), "quatern": (256, "f"), "srow": (280, "f"), "pixdim": (80, "f")}
    for name, values in fields.items():
        place, code = places[name]
        given = np.atleast_1d(values).tolist()
        struct.pack_into(f"<{len(given)}{code}", content, place, *given)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("read", [read_simpleitk, read_nibabel])
def test_voxel_sizes_that_contradict_each_other_are_told_as_doubt(
    read: object, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert callable(read)
    path = changed_nifti(tmp_path / "a.nii", qform=0, srow=[5, 0, 0, 0, 0, 5, 0, 0, 0, 0, 5, 0])
    image = read([path])
    assert image.spacing == (3, 2, 1)
    ((kind, found, expected, _),) = image.geometry.extra[DOUBTS]
    assert (kind, found) == ("spacing contradicts", "voxel size (1, 2, 3) by pixdim (x, y, z)")
    assert expected == "(5, 5, 5), as the sform says"
    assert capfd.readouterr().err == ""  # ITK would warn there, without a word of the case
    assert DOUBTS not in read([changed_nifti(tmp_path / "b.nii")]).geometry.extra


def test_a_sheared_nifti_is_refused_in_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = changed_nifti(tmp_path / "a.nii", qform=0, srow=[1, 0.5, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0])
    with pytest.raises(DataError, match=r"a\.nii: its axes are not at right angles.*Resample"):
        read_simpleitk([path])
    assert capfd.readouterr().err == ""


def test_a_sheared_nrrd_is_told_as_doubt(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(path), False)
    path.write_bytes(path.read_bytes().replace(b"(0,1,0)", b"(0.5,1,0)"))
    ((kind, *_),) = read_simpleitk([path]).geometry.extra[DOUBTS]
    assert kind == "direction not orthonormal"


@st.composite
def headers(draw: st.DrawFn) -> dict[str, object]:
    """Fields of a header whose axes are about at right angles, most often."""
    sizes = np.array(draw(st.lists(st.floats(0.02, 40), min_size=3, max_size=3)))
    turn = Rotation.from_euler("xyz", draw(st.lists(st.floats(0, 7), min_size=3, max_size=3))).as_matrix()
    noise = draw(st.sampled_from([0, 1e-6, 1e-5, 1e-4, 1e-2]))
    off = np.array(draw(st.lists(st.floats(-1, 1), min_size=9, max_size=9))).reshape(3, 3)
    scale = draw(st.sampled_from([1, 1, 1, 1e-20, 1e20]))
    rows = np.hstack([(turn + noise * off) * sizes * scale, draw(st.floats(-900, 900)) * np.ones((3, 1))]).ravel()
    quatern = draw(st.lists(st.floats(-1.5, 1.5, width=32), min_size=6, max_size=6))
    codes = draw(st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1), (2, 4), (-1, 3), (5, -2)]))
    fields: dict[str, object] = {
        "pixdim": sizes,
        "quatern": quatern,
        "srow": rows,
        "qform": codes[0],
        "sform": codes[1],
    }
    if draw(st.integers(0, 9)) == 0:
        odd = draw(st.sampled_from([0.0, -1.0, math.nan, math.inf]))
        fields[draw(st.sampled_from(["pixdim", "quatern", "srow"]))] = [odd] * 3
    return fields


@given(headers())
@settings(max_examples=300)
def test_what_is_said_to_be_read_by_itk_is(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, object]) -> None:
    path = changed_nifti(tmp_path_factory.mktemp("nifti") / "a.nii", **fields)
    if surely_reads(path, 1 << 30):
        assert read_simpleitk([path]).array.shape == (1, 6, 7, 8)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_ordinary_headers_need_no_itk_to_be_known(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    turned = sitk.GetImageFromArray(VOLUME)
    turned.SetSpacing((0.7, 0.7, 3.0))
    turned.SetDirection((0.0, -1.0, 0.0, 0.8, 0.0, -0.6, 0.6, 0.0, 0.8))
    sitk.WriteImage(turned, str(path))
    assert surely_reads(path, 1 << 30)
    assert surely_reads(path, 1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 200])
    with pytest.raises(DataError, match=r"truncated|damaged"):
        surely_reads(path, 1 << 30)
    assert not surely_reads(changed_nifti(tmp_path / "b.nii", sform=1, srow=[1, 0.5, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0]), 1)
