"""OME-Zarr label maps: written region by region, as images of their own or into the group of an image."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segplug.arrays import release
from segplug.errors import DataError
from segplug.model import Geometry, Labels
from segplug_zarr.multiscales import MILLIMETRES, SPATIAL, multiscales
from segplug_zarr.places import Place, open_store

if TYPE_CHECKING:
    import zarr

CHUNKS = (64, 128, 128)
"""Voxels (z, y, x) of a chunk where the image's own are not known."""

LARGEST_CHUNK = 1 << 22
"""Voxels of a chunk: those of an image with larger ones, such as whole slices, are not taken over."""

SMALLEST_LEVEL = 256
"""Voxels along the longest axis, from which on a pyramid has no further level."""

PALETTE = 0.618033988749895
"""Golden ratio: steps of hue between colours of labels, so that neighbours differ."""


def write_ome_zarr(path: Path, labels: Labels, *, version: str | None = None) -> None:
    """Write a label map as an OME-Zarr image of its own, which says that it is a label map (`image-label`).

    A zip where the name ends in `.zip` or `.ozx`, else a folder. Labels may be mapped from disk: chunks are
    read, written and forgotten one after the other.

    Args:
        version: of NGFF, 0.4 (Zarr 2) or 0.5 (Zarr 3); None for that of the image, or 0.5.

    Raises:
        DataError: it cannot be written there.
    """
    write_labels(path, labels, version=version)


def write_labels(
    url: Path | str,
    labels: Labels,
    *,
    version: str | None = None,
    into: str | None = None,
    names: Mapping[int, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write a label map to a path or to any store that fsspec knows.

    Args:
        url: of the label map; with `into`, of the image.
        labels: (z, y, x).
        version: of NGFF, 0.4 (Zarr 2) or 0.5 (Zarr 3); None for that of the image, or 0.5.
        into: name under which it stands in the image's group `labels`, in the place of an earlier one.
        names: of the labels' values, for `image-label`.
        storage_options: for fsspec.

    Raises:
        DataError: it cannot be written there; there is no image to put it into.
    """
    import zarr

    where = url if isinstance(url, Path) or "://" in url else Path(url)
    place = Place(str(url), where, storage_options=storage_options)
    version = version or ("0.4" if labels.geometry.extra.get("zarr_format") == 2 else "0.5")
    if version not in ("0.4", "0.5"):
        raise DataError(f"{url}: NGFF version {version}; expected 0.4 or 0.5")
    geometry, flat = labels.geometry, _is_flat(labels)
    counts = _count(labels.array)
    steps = _pyramid(labels.array.shape)
    store = open_store(place, mode="w" if into is None else "a")
    try:
        image = None if into is None else _labels_of_image(store, str(url), into)
        if image is not None:
            version = image[0]
        source = None if into is None else "../../"
        attributes = _attributes(
            labels, version, into or "labels", steps, counts, names or {}, flat=flat, source=source
        )
        # at once with the group: nothing can be written twice into a zip
        if into is None or image is None:
            group = zarr.create_group(store, zarr_format=_format(version), overwrite=True, attributes=attributes)
        else:
            group = image[1].create_group(into, overwrite=True, attributes=attributes)
        dtype = _smallest(min(counts, default=0), max(counts, default=0))
        chunks = tuple(geometry.extra.get("chunks", CHUNKS))
        chunks = chunks if prod(chunks) <= LARGEST_CHUNK else CHUNKS
        for number, every in enumerate(steps):
            _write_level(group, str(number), labels.array, every, chunks, dtype, version, flat=flat)
    finally:
        store.close()


def _labels_of_image(store: Any, url: str, name: str) -> tuple[str, zarr.Group]:
    """The image's version of NGFF and its group of label maps, in which this one is listed."""
    import zarr
    from zarr.storage import ZipStore

    if isinstance(store, ZipStore):
        raise DataError(f"{url}: a zip, in which nothing can be replaced; expected a folder or store. Unpack it")
    if not name or name in (".", "..") or "/" in name:
        raise DataError(f"{url}: the name {name!r} of a label map; expected one without slashes")
    try:
        image = zarr.open_group(store, mode="r+")
    except (FileNotFoundError, KeyError):
        raise DataError(f"{url}: no such OME-Zarr image to put labels into. Write them by themselves") from None
    version = "0.5" if "ome" in image.attrs else "0.4"
    group = image.require_group("labels")
    known: dict[str, Any] = dict(group.attrs)
    listed = list((known.get("ome", {}) if version == "0.5" else known).get("labels", []))
    listed = [*(each for each in listed if each != name), name]
    group.attrs.update({"ome": {"version": version, "labels": listed}} if version == "0.5" else {"labels": listed})
    return version, group


def _write_level(
    group: zarr.Group,
    name: str,
    array: NDArray[Any],
    steps: Sequence[int],
    largest: Sequence[int],
    dtype: np.dtype[Any],
    version: str,
    *,
    flat: bool,
) -> None:
    """Every so many voxels of an array, chunk by chunk."""
    axes = SPATIAL[1:] if flat else SPATIAL
    shape = tuple(-(-n // s) for n, s in zip(array.shape, steps, strict=True))
    chunks = tuple(min(c, n) for c, n in zip(largest, shape, strict=True))
    options: dict[str, Any] = {"shape": shape[-len(axes) :], "chunks": chunks[-len(axes) :], "dtype": dtype}
    if version == "0.4":
        options["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
    else:
        options["dimension_names"] = axes
    level = group.create_array(name, **options)
    for start in product(*(range(0, n, c) for n, c in zip(shape, chunks, strict=True))):
        stop = tuple(min(a + c, n) for a, c, n in zip(start, chunks, shape, strict=True))
        part = array[tuple(slice(a * s, b * s, s) for a, b, s in zip(start, stop, steps, strict=True))]
        place = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        level[place[-len(axes) :]] = part[0] if flat else part
        release(array)


def _attributes(
    labels: Labels,
    version: str,
    name: str,
    steps: Sequence[Sequence[int]],
    counts: Mapping[int, int],
    names: Mapping[int, str],
    *,
    flat: bool,
    source: str | None,
) -> dict[str, Any]:
    """Of the group of a label map; `source` is the image's group, relative to it."""
    geometry = labels.geometry
    axes = SPATIAL[1:] if flat else SPATIAL
    units = {axis: unit for axis, unit in geometry.extra.get("units", {}).items() if axis in axes}
    if not units and not geometry.extra.get("doubts"):
        units = dict.fromkeys(axes, "millimeter")
    levels = [{"path": str(n), **_transformations(geometry, units, axes, each)} for n, each in enumerate(steps)]
    shown = {"version": version, **_properties(counts, names)}
    if source is not None:
        shown["source"] = {"image": source}
    found = {"multiscales": [multiscales(version, name, axes, units, levels)], "image-label": shown}
    return {"ome": {"version": version, **found}} if version == "0.5" else found


def _is_flat(labels: Labels) -> bool:
    return labels.array.shape[0] == 1 and labels.geometry.spacing[0] == 999


def _count(array: NDArray[Any]) -> dict[int, int]:
    """Voxels of each value, counted plane by plane."""
    counts: dict[int, int] = {}
    for plane in array:
        for value, count in zip(*np.unique(plane, return_counts=True), strict=True):
            counts[int(value)] = counts.get(int(value), 0) + int(count)
        release(array)
    return counts


def _format(version: str) -> Any:
    return 2 if version == "0.4" else 3


def _pyramid(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Steps (z, y, x) of each level: every second voxel of the level before along its longer axes."""
    steps = [(1,) * len(shape)]
    while max(sizes := [-(-n // s) for n, s in zip(shape, steps[-1], strict=True)]) > SMALLEST_LEVEL:
        halved = [s * 2 if n * 2 > max(sizes) else s for n, s in zip(sizes, steps[-1], strict=True)]
        steps.append(tuple(halved))
    return steps


def _transformations(
    geometry: Geometry, units: Mapping[str, str], axes: Sequence[str], steps: Sequence[int]
) -> dict[str, list[float]]:
    spacing = list(geometry.extra.get("flat", geometry.spacing))[-len(axes) :]
    origin = ([*reversed(geometry.origin)] or [0.0] * len(axes))[-len(axes) :]
    factors = [MILLIMETRES[units.get(axis, "millimeter")] for axis in axes]
    return {
        # the voxels taken are those at the first corner of each block: the first one's centre does not move
        "scale": [s * n / f for s, n, f in zip(spacing, steps[-len(axes) :], factors, strict=True)],
        "translation": [o / f for o, f in zip(origin, factors, strict=True)],
    }


def _properties(counts: Mapping[int, int], names: Mapping[int, str]) -> dict[str, Any]:
    values = [v for v in sorted({*counts, *names}) if v != 0]
    colours = []
    for number, value in enumerate(values):
        rgb = colorsys.hsv_to_rgb(number * PALETTE % 1, 0.8, 1)
        colours.append({"label-value": value, "rgba": [*(round(255 * part) for part in rgb), 255]})
    properties = [
        {"label-value": v, **({"name": names[v]} if v in names else {}), "voxels": counts.get(v, 0)} for v in values
    ]
    return {"colors": colours, "properties": properties} if values else {}


def _smallest(low: int, high: int) -> np.dtype[Any]:
    """The smallest type of whole numbers that holds both."""
    return np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
