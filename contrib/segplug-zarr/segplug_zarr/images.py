"""OME-Zarr images: whole, or region by region."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import Geometry, Image
from segplug_zarr.multiscales import SPATIAL, Multiscale, read_multiscale
from segplug_zarr.places import Place, find_place, open_store

if TYPE_CHECKING:
    import zarr

BYTES_AT_ONCE = 1 << 26
"""Of a region, in float32, that is read at a time where the whole image is wanted."""


class OpenOmeZarr:
    """An image that is open: nothing is read but metadata and the regions that are asked for.

    Args:
        place: where it is.

    Raises:
        DataError: it is missing, is no OME-Zarr image, or has no such level, time or label map.
    """

    def __init__(self, place: Place) -> None:
        self._name = place.name
        with reading(place.name):
            group = _open_group(place)
            attributes = dict(group.attrs)
        self._scale = read_multiscale(attributes, place.level, place.name)
        axes = self._scale.axes
        with reading(place.name):
            self._array: zarr.Array[Any] = group[self._scale.path]  # type: ignore[assignment]
            sizes = dict(zip(axes, self._array.shape, strict=True))
        if self._array.dtype.kind not in "buif":
            raise DataError(f"{place.name}: values of type {self._array.dtype}; expected whole or floating numbers")
        if place.time >= sizes.get("t", 1):
            raise DataError(f"{place.name}: has no time {place.time}; expected 0 to {sizes.get('t', 1) - 1}")
        self._time = place.time
        pieces = dict(zip(axes, self._array.shards or self._array.chunks, strict=True))
        self.shape = (sizes.get("c", 1), sizes.get("z", 1), sizes["y"], sizes["x"])
        self.chunks = (pieces.get("z", 1), pieces["y"], pieces["x"])
        self.geometry = _geometry(self._scale, self.chunks, self._array.metadata.zarr_format)

    def read(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[np.float32]:
        """All channels of a region (z, y, x): float32 (channels, *(stop - start)).

        Raises:
            DataError: a chunk is damaged, or cannot be had.
        """
        sides = dict(zip(SPATIAL, map(slice, start, stop), strict=True))
        index = tuple(self._time if axis == "t" else sides.get(axis, slice(None)) for axis in self._scale.axes)
        with reading(self._name):
            values = np.asarray(self._array[index])
        left = [axis for axis in self._scale.axes if axis != "t"]
        order = [left.index(axis) for axis in ("c", *SPATIAL) if axis in left]
        shape = (self.shape[0], *(b - a for a, b in zip(start, stop, strict=True)))
        return np.ascontiguousarray(values.transpose(order).reshape(shape), np.float32)


class OmeZarrReader:
    """Reads a case from OME-Zarr: one image per path, with all its channels."""

    def __call__(self, paths: Sequence[Path]) -> Image:
        """See `segplug.protocols.Reader`. All chunks are read; those that are not there hold the fill value.

        Raises:
            DataError: a file is missing or damaged, or the files' grids differ.
        """
        return _whole(self.open(paths))

    def open(self, paths: Sequence[Path]) -> OpenOmeZarr | Stacked:
        """See `segplug.protocols.RegionReader`.

        Raises:
            DataError: as for the call, but chunks are not looked at.
        """
        opened = [OpenOmeZarr(find_place(path)) for path in paths]
        for path, other in zip(paths[1:], opened[1:], strict=True):
            _require_same(opened[0], other, path, paths[0])
        return opened[0] if len(opened) == 1 else Stacked(opened)

    def __reduce__(self) -> str:
        return "ome_zarr"


ome_zarr = OmeZarrReader()


class Stacked:
    """Channels from several images of one grid."""

    def __init__(self, images: Sequence[OpenOmeZarr]) -> None:
        self._images = images
        self.shape = (sum(i.shape[0] for i in images), *images[0].shape[1:])
        self.chunks, self.geometry = images[0].chunks, images[0].geometry

    def read(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[np.float32]:
        """See `OpenOmeZarr.read`."""
        return np.concatenate([image.read(start, stop) for image in self._images])


def read_image(
    url: str, *, level: int = 0, time: int = 0, label: str | None = None, storage_options: dict[str, Any] | None = None
) -> Image:
    """Read an image, or one of its label maps, from a URL or a path; for notebooks.

    Args:
        url: of a folder, a zip, or of any store that fsspec knows.
        level, time, label, storage_options: see `segplug_zarr.places.Place`.

    Raises:
        DataError: it is missing or damaged, or no OME-Zarr image.
    """
    where = url if "://" in url else Path(url)
    return _whole(OpenOmeZarr(Place(url, where, level, time, label, storage_options)))


@contextmanager
def reading(name: str) -> Iterator[None]:
    """What zarr, its codecs and fsspec raise where something is missing or damaged, as one error with a name."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except ImportError as error:
        raise DataError(f"{name}: needs a package that is not installed: {error}") from None
    except FileNotFoundError:
        raise DataError(f"{name}: no such OME-Zarr image, or not all of it is there. Restore it") from None
    except Exception as error:  # codecs and file systems have errors of their own
        raise DataError(
            f"{name}: cannot be read: {type(error).__name__}: {error}. Restore it from its source"
        ) from None


def _open_group(place: Place) -> zarr.Group:
    import zarr

    path = "" if place.label is None else f"labels/{place.label}"
    return zarr.open_group(open_store(place), path=path, mode="r")


def _geometry(scale: Multiscale, chunks: tuple[int, ...], zarr_format: int) -> Geometry:
    spacing, origin = scale.millimetres(scale.scale), scale.millimetres(scale.translation)
    doubts = []
    if not scale.units:
        doubts.append(
            ("no unit", f"a scale of {scale.scale} without unit, taken for mm", "axes with a unit",
             "Add the unit to the axes unless it is mm")
        )  # fmt: skip
    extra = {"units": dict(scale.units), "chunks": list(chunks), "zarr_format": zarr_format, "doubts": doubts}
    if "z" not in spacing:
        return Geometry(
            (999.0, 1.0, 1.0), (origin["x"], origin["y"]), (), {**extra, "flat": [spacing["y"], spacing["x"]]}
        )
    return Geometry(tuple(spacing[a] for a in SPATIAL), tuple(origin[a] for a in reversed(SPATIAL)), (), extra)


def _whole(image: OpenOmeZarr | Stacked) -> Image:
    array = np.empty(image.shape, np.float32)
    depth = image.chunks[0]
    row = max(1, image.shape[0] * prod(image.shape[2:]) * 4)
    step = max(depth, BYTES_AT_ONCE // row // depth * depth)
    _, z, y, x = image.shape
    for first in range(0, z, step):
        last = min(first + step, z)
        array[:, first:last] = image.read((first, 0, 0), (last, y, x))
    return Image(array, image.geometry)


def _require_same(first: OpenOmeZarr, other: OpenOmeZarr, path: Path, first_path: Path) -> None:
    for what, one, two in (
        ("shape", first.shape[1:], other.shape[1:]),
        ("spacing", first.geometry.spacing, other.geometry.spacing),
        ("origin", first.geometry.origin, other.geometry.origin),
    ):
        if not np.allclose(one, two, rtol=1e-5):
            raise DataError(
                f"{path}: {what} {two}; expected {one}, as {first_path} has it. Resample it, or correct its metadata"
            )


def without_doubts(geometry: Geometry) -> Geometry:
    """For comparing geometries."""
    return replace(geometry, extra={})
