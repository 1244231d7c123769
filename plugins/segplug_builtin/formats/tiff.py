"""3D TIFF stacks with their spacing in a JSON file beside them, as nnU-Net has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import Geometry, Image, Labels
from segplug.protocols import ImageSize
from segplug.runtime.files import PARTIAL, read_json, write_json
from segplug.runtime.geometry import ASSUMED
from segplug_builtin.formats.channels import stack_channels
from segplug_builtin.formats.damage import read_whole, reading
from segplug_builtin.formats.label_type import smallest_label_type
from segplug_builtin.formats.sizes import PIECES, different_values
from segplug_builtin.formats.tiff_pages import check_size, check_tiff


def read_tiff_stack(paths: Sequence[Path]) -> Image:
    """nnU-Net's Tiff3DIO: pages are z. The spacing comes from `CASE.json` beside the file, {"spacing": [z, y, x]}.

    Without such a file it is (1, 1, 1), as in nnU-Net.

    Raises:
        DataError: a file is missing, truncated, damaged or no 3D TIFF, the spacing is wrong, or channels do not fit.
    """
    return stack_channels(paths, _read)


def size_of_tiff_stack(path: Path) -> ImageSize | None:
    """The size of one file's image.

    Raises:
        DataError: it has not three axes.
    """
    size = size_of_tiff(path)
    if size is None:
        return None
    shape, stored, taken = size
    if len(shape) != 3:
        raise DataError(f"{path}: a TIFF with {len(shape)} axes; expected three: pages, rows, columns")
    return ImageSize((1, *shape), _spacing(path) or (1.0, 1.0, 1.0), taken, different_values(stored))


def size_of_tiff(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int] | None:
    """Shape, type of the numbers and bytes that reading takes; None if the pages do not tell."""
    import tifffile

    with reading(path, "a TIFF file"), tifffile.TiffFile(path) as file:
        series = file.series[0]
        stored = np.dtype(series.dtype)
        check_size(series, path.stat().st_size, path)
        shape = tuple(int(n) for n in series.shape)
        # the file; its voxels, twice where Pillow has to read them; as they are turned into ours
        return shape, stored, path.stat().st_size + prod(shape) * (2 * stored.itemsize + 4) + PIECES


def write_tiff_stack(path: Path, labels: Labels) -> None:
    """Write a label map as zlib-compressed TIFF, and its spacing beside it in `CASE.json`."""
    import tifffile

    # the framework renames the stack when it is whole; the JSON file has to get its final name here
    name = re.sub(rf"^{re.escape(PARTIAL)}[0-9a-f]+-", "", path.name)
    write_json(path.with_name(name).with_suffix(".json"), {"spacing": [float(s) for s in labels.geometry.spacing]})
    array = smallest_label_type(labels.array)
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib", metadata={"axes": "ZYX"})


def tiff_array(path: Path) -> NDArray[Any]:
    """Voxels of a TIFF file as they are stored, every segment read and checked.

    Raises:
        DataError: the file is missing, truncated or damaged.
    """
    import tifffile

    content = read_whole(path)
    check_tiff(content, path)
    with reading(path, "a TIFF file"), tifffile.TiffFile(path) as file:
        series = file.series[0]
        check_size(series, len(content), path)
        try:
            return np.asarray(series.asarray())
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
        return _by_pillow(path)  # LZW and the like, which tifffile leaves to a package that need not be there


def _by_pillow(path: Path) -> NDArray[Any]:
    from PIL import Image as PillowImage
    from PIL import ImageSequence

    with PillowImage.open(path) as file:
        pages = [np.array(page) for page in ImageSequence.Iterator(file)]
    return pages[0] if len(pages) == 1 else np.stack(pages)


def _read(path: Path) -> Image:
    array = tiff_array(path)
    if array.ndim != 3:
        raise DataError(f"{path}: a TIFF with {array.ndim} axes; expected three: pages, rows, columns")
    with reading(path, "a TIFF of real numbers"):
        values = array[None].astype(np.float32)
    spacing = _spacing(path)
    if spacing is None:
        return Image(values, Geometry((1.0, 1.0, 1.0), extra={ASSUMED: ["spacing"]}))
    return Image(values, Geometry(spacing))


def _spacing(path: Path) -> tuple[float, ...] | None:
    """Image files `CASE_0000.tif` and label maps `CASE.tif` share the name `CASE.json`."""
    stem = path.name.rpartition(".")[0]
    for name in (re.sub(r"_\d{4}$", "", stem), stem):
        file = path.with_name(f"{name}.json")
        if file.is_file():
            return read_spacing(file)
    return None


def read_spacing(file: Path) -> tuple[float, ...]:
    """The spacing (z, y, x) in a `CASE.json`.

    Raises:
        DataError: it holds none.
    """
    raw = read_json(file)
    spacing = raw.get("spacing") if isinstance(raw, dict) else None
    numbers = spacing if isinstance(spacing, list) else []
    if len(numbers) != 3 or not all(isinstance(s, (int, float)) and s > 0 for s in numbers):
        raise DataError(f'{file}: spacing {spacing}; expected {{"spacing": [z, y, x]}}, three positive numbers')
    return tuple(float(s) for s in numbers)
