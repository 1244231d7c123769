"""Label maps written and read again, in every place, and opened by others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from segplug_zarr.images import ome_zarr, read_image
from segplug_zarr.label_maps import write_labels, write_ome_zarr

from segplug.errors import DataError
from segplug.model import Geometry, Labels

GEOMETRY = Geometry((2.0, 0.75, 1.25), (10.0, -20.0, 30.5))


def example(shape: tuple[int, ...] = (5, 300, 280), dtype: Any = np.uint8) -> Labels:
    array = np.zeros(shape, dtype)
    array[:, 20:220, 30:200] = 1
    array[-2:, 100:150, 90:] = 3
    return Labels(array, GEOMETRY if shape[0] > 1 else Geometry((999.0, 1.0, 1.0)))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("name", ["case.ome.zarr", "case.zarr.zip", "case.ozx"])
def test_what_is_written_is_read(tmp_path: Path, name: str, version: str) -> None:
    labels = example()
    write_ome_zarr(tmp_path / name, labels, version=version)
    image = ome_zarr([tmp_path / name])
    assert image.array.dtype == np.float32
    np.testing.assert_array_equal(image.array[0], labels.array)
    assert image.spacing == GEOMETRY.spacing
    assert image.geometry.origin == GEOMETRY.origin
    assert image.geometry.extra["zarr_format"] == (2 if version == "0.4" else 3)
    again = tmp_path / f"again_{name}"
    write_ome_zarr(again, Labels(labels.array, image.geometry))  # in the image's own version
    assert ome_zarr([again]).geometry.extra["zarr_format"] == image.geometry.extra["zarr_format"]


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 200), (np.int16, 300), (np.int32, 70000), (np.int16, -1)])
def test_the_type_holds_every_value(tmp_path: Path, dtype: Any, value: int) -> None:
    labels = example(dtype=np.dtype(dtype))
    labels.array[2, 3, 4] = value
    write_ome_zarr(tmp_path / "a.zarr", labels)
    np.testing.assert_array_equal(ome_zarr([tmp_path / "a.zarr"]).array[0], labels.array)


def test_slices_are_images_of_two_axes(tmp_path: Path) -> None:
    labels = example((1, 40, 260))
    write_ome_zarr(tmp_path / "a.zarr", labels)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert group["0"].shape == (40, 260)
    image = ome_zarr([tmp_path / "a.zarr"])
    assert image.spacing == (999.0, 1.0, 1.0)
    np.testing.assert_array_equal(image.array[0], labels.array)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_py_reads_it(tmp_path: Path, version: str) -> None:
    labels = example()
    write_ome_zarr(tmp_path / "a.ome.zarr", labels, version=version)
    (node,) = Reader(parse_url(tmp_path / "a.ome.zarr"))()
    np.testing.assert_array_equal(np.asarray(node.data[0]), labels.array)
    assert [level.shape for level in node.data] == [(5, 300, 280), (5, 150, 140)]
    np.testing.assert_array_equal(np.asarray(node.data[1]), labels.array[:, ::2, ::2])
    assert node.metadata["coordinateTransformations"][1][0]["scale"] == [2.0, 1.5, 2.5]
    assert node.metadata["coordinateTransformations"][1][1]["translation"] == [30.5, -20.0, 10.0]
    assert set(node.metadata["color"]) == {1, 3}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_in_the_group_of_an_image(tmp_path: Path, version: str) -> None:
    labels = example()
    write_ome_zarr(tmp_path / "image.ome.zarr", Labels(labels.array * 9, GEOMETRY), version=version)
    for _ in range(2):  # a second time replaces it
        write_labels(tmp_path / "image.ome.zarr", labels, into="organs", names={1: "liver", 3: "spleen"})
    write_labels(tmp_path / "image.ome.zarr", labels, into="others")
    nodes = list(Reader(parse_url(tmp_path / "image.ome.zarr"))())
    found = {node.metadata.get("name"): node for node in nodes if "labels" in str(node.zarr)}
    assert len(found) >= 1
    group = zarr.open_group(tmp_path / "image.ome.zarr", mode="r")
    attributes = dict(group["labels"].attrs)
    assert attributes.get("ome", attributes)["labels"] == ["organs", "others"]
    shown = dict(group["labels/organs"].attrs)
    shown = shown.get("ome", shown)["image-label"]
    assert shown["source"] == {"image": "../../"}
    assert shown["properties"] == [
        {"label-value": 1, "name": "liver", "voxels": int((labels.array == 1).sum())},
        {"label-value": 3, "name": "spleen", "voxels": int((labels.array == 3).sum())},
    ]
    pointer = tmp_path / "case.ome.zarr"
    pointer.write_text(json.dumps({"url": "image.ome.zarr", "label": "organs"}))
    np.testing.assert_array_equal(ome_zarr([pointer]).array[0], labels.array)


def test_any_store_of_fsspec(tmp_path: Path) -> None:
    labels = example()
    for url in ("memory://bucket/a.ome.zarr", f"file://{tmp_path}/a.ome.zarr"):
        write_labels(url, labels)
        np.testing.assert_array_equal(read_image(url).array[0], labels.array)
        np.testing.assert_array_equal(read_image(url, level=1).array[0], labels.array[:, ::2, ::2])
        pointer = tmp_path / "case.zarr"
        pointer.write_text(json.dumps({"url": url, "level": 1}))
        image = ome_zarr([pointer])
        assert image.shape == (5, 150, 140)
        assert image.spacing == (2.0, 1.5, 2.5)


def test_no_image_to_put_labels_into(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such OME-Zarr image to put labels into"):
        write_labels(tmp_path / "absent.zarr", example(), into="organs")
