"""Images as others write them: axes in any order, units, levels, damage, and a web server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from ome_zarr.writer import write_image
from segplug_zarr.images import ome_zarr, read_image

from segplug.errors import DataError

SIZES = {"t": 2, "c": 3, "z": 4, "y": 6, "x": 5}
UNITS = {"z": "micrometer", "y": "nanometer", "x": "nanometer"}


def make(
    path: Path, axes: str = "tczyx", *, zarr_format: Any = 3, unit: bool = True, extra: dict[str, Any] | None = None
) -> np.ndarray[Any, Any]:
    """An image with two levels, whose values tell their place; the first level's, with the axes in this order."""
    shape = [SIZES[a] for a in axes]
    array = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    kinds = {"t": "time", "c": "channel"}
    described = [
        {"name": a, "type": kinds.get(a, "space"), **({"unit": UNITS[a]} if unit and a in UNITS else {})} for a in axes
    ]
    scale = {"z": 2.0, "y": 500.0, "x": 250.0}
    datasets = []
    for level in range(2):
        small = array[tuple(slice(None, None, 2) if level and a in "yx" else slice(None) for a in axes)]
        group.create_array(str(level), data=small, chunks=tuple(min(2, n) for n in small.shape))
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [scale.get(a, 1.0) * (2 if level and a in "yx" else 1) for a in axes]},
                    {"type": "translation", "translation": [{"z": 10.0, "x": 1000.0}.get(a, 0.0) for a in axes]},
                ],
            }
        )
    multiscale = {"axes": described, "datasets": datasets, "version": "0.4", **(extra or {})}
    if zarr_format == 3:
        group.attrs.put({"ome": {"version": "0.5", "multiscales": [multiscale]}})
    else:
        group.attrs.put({"multiscales": [multiscale]})
    return array


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("axes", ["tczyx", "czyx", "zyx", "xyz", "yxc", "yx", "xzcyt", "zcyx"])
def test_axes_in_any_order(tmp_path: Path, axes: str, zarr_format: int) -> None:
    array = make(tmp_path / "a.zarr", axes, zarr_format=zarr_format)
    image = ome_zarr([tmp_path / "a.zarr"])
    first = array[tuple(0 if a == "t" else slice(None) for a in axes)]
    left = axes.replace("t", "")
    expected = first.transpose([left.index(a) for a in "czyx" if a in left])
    if "z" not in axes:
        expected = expected[..., None, :, :]
    if "c" not in axes:
        expected = expected[None]
    np.testing.assert_array_equal(image.array, expected)
    if "z" in axes:
        assert image.spacing == pytest.approx((2e-3, 5e-4, 2.5e-4))
        assert image.geometry.origin == pytest.approx((1e-3, 0.0, 1e-2))
    else:
        assert image.spacing == (999.0, 1.0, 1.0)
    assert not image.geometry.extra["doubts"]


def test_levels_and_times_by_a_pointer(tmp_path: Path) -> None:
    array = make(tmp_path / "a.zarr")
    pointer = tmp_path / "case_0000.zarr"
    pointer.write_text(json.dumps({"url": "a.zarr", "level": 1, "time": 1}))
    image = ome_zarr([pointer])
    np.testing.assert_array_equal(image.array, array[1][:, :, ::2, ::2])
    assert image.spacing == pytest.approx((2e-3, 1e-3, 5e-4))
    opened = ome_zarr.open([pointer])
    assert opened.shape == (3, 4, 3, 3)
    np.testing.assert_array_equal(opened.read((1, 0, 1), (3, 2, 3)), image.array[:, 1:3, 0:2, 1:3])


def test_what_all_levels_share_comes_last(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr", "zyx", extra={"coordinateTransformations": [{"type": "scale", "scale": [2, 2, 2]}]})
    image = ome_zarr([tmp_path / "a.zarr"])
    assert image.spacing == pytest.approx((4e-3, 1e-3, 5e-4))
    assert image.geometry.origin == pytest.approx((2e-3, 0.0, 2e-2))


def test_without_unit_it_is_taken_for_mm_and_doubted(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr", "zyx", unit=False)
    image = ome_zarr([tmp_path / "a.zarr"])
    assert image.spacing == (2.0, 500.0, 250.0)
    assert image.geometry.extra["doubts"][0][0] == "no unit"


def test_several_files_are_channels(tmp_path: Path) -> None:
    array = make(tmp_path / "a.zarr", "zyx")
    make(tmp_path / "b.zarr", "czyx")
    image = ome_zarr([tmp_path / "a.zarr", tmp_path / "b.zarr"])
    assert image.array.shape == (4, 4, 6, 5)
    np.testing.assert_array_equal(image.array[0], array)
    make(tmp_path / "c.zarr", "xy")
    with pytest.raises(DataError, match=r"c\.zarr: shape"):
        ome_zarr([tmp_path / "a.zarr", tmp_path / "c.zarr"])


@pytest.mark.parametrize("fmt", ["0.4", "0.5"])
def test_images_that_ome_zarr_py_wrote(tmp_path: Path, fmt: str) -> None:
    from ome_zarr.format import FormatV04, FormatV05

    array = np.random.default_rng(0).integers(0, 1000, (2, 8, 70, 60), np.uint16)
    write_image(
        array,
        str(tmp_path / "a.ome.zarr"),
        fmt=FormatV04() if fmt == "0.4" else FormatV05(),
        axes=[
            {"name": "c", "type": "channel"},
            *({"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"),
        ],
    )
    np.testing.assert_array_equal(ome_zarr([tmp_path / "a.ome.zarr"]).array, array)


def test_over_http(tmp_path: Path, server: str) -> None:
    array = make(tmp_path / "a.zarr", "czyx")
    np.testing.assert_array_equal(read_image(f"{server}/a.zarr").array, array)
    pointer = tmp_path / "case_0000.zarr"
    pointer.write_text(json.dumps({"url": f"{server}/a.zarr", "level": 1}))
    assert ome_zarr([pointer]).shape == (4, 3, 3)
    with pytest.raises(DataError, match=r"absent\.zarr: no such OME-Zarr image"):
        read_image(f"{server}/absent.zarr")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_damaged_chunk(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr", "zyx")
    chunk = sorted(p for p in (tmp_path / "a.zarr" / "0").rglob("*") if p.is_file() and p.name != "zarr.json")[0]
    chunk.write_bytes(chunk.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"a\.zarr: cannot be read: .*Restore it"):
        ome_zarr([tmp_path / "a.zarr"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"axes": None}, "metadata 'multiscales' that are not NGFF's"),
        ({"axes": [{"name": n} for n in "zyq"]}, "the axes z, y, q; expected y and x"),
        ({"axes": [{"name": n, "type": "space", "unit": "parsec"} for n in "zyx"]}, "the unit parsec; expected one of"),
        ({"datasets": []}, "has no level 0"),
        ({"coordinateTransformations": [{"type": "affine"}]}, "a transformation 'affine'; expected scale"),
        ({"coordinateTransformations": [{"type": "scale", "scale": [1, 0, 1]}]}, "expected numbers above 0"),
        ({"coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]}, "ValueError"),
    ],
)
def test_metadata_that_cannot_be(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    make(tmp_path / "a.zarr", "zyx", extra=change)
    with pytest.raises(DataError, match=told) as raised:
        ome_zarr([tmp_path / "a.zarr"])
    assert "a.zarr" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "neither an OME-Zarr folder nor a zip"),
        ('{"url": 3}', "neither an OME-Zarr folder nor a zip"),
        ('{"url": "a.zarr", "scale": 1}', "expected in such a file"),
        ('{"url": "a.zarr", "level": -1}', "expected in such a file"),
        ('{"url": "a.zarr", "level": 2}', "has no level 2; expected 0 to 1"),
        ('{"url": "a.zarr", "time": 2}', "has no time 2; expected 0 to 1"),
        ('{"url": "a.zarr", "label": "liver"}', "no such OME-Zarr image"),
        ('{"url": "b.zarr"}', "no such OME-Zarr image"),
        ('{"url": "quux://b.zarr"}', "quux"),
    ],
)
def test_pointers_that_point_nowhere(tmp_path: Path, text: str, told: str) -> None:
    make(tmp_path / "a.zarr")
    (tmp_path / "case_0000.zarr").write_text(text)
    with pytest.raises(DataError, match=told) as raised:
        ome_zarr([tmp_path / "case_0000.zarr"])
    assert "case_0000.zarr" in str(raised.value)


def test_a_group_of_images_is_none(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.attrs.put({"bioformats2raw.layout": 3})
    with pytest.raises(DataError, match="a collection of images"):
        ome_zarr([tmp_path / "a.zarr"])
