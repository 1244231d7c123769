"""2D images in everyday formats: png, bmp and tif; grey, RGB or RGBA."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import Geometry, Image, Labels
from segplug.protocols import ImageSize
from segplug_builtin.formats.channels import stack_channels
from segplug_builtin.formats.damage import RESTORE, read_whole, reading
from segplug_builtin.formats.label_type import smallest_label_type
from segplug_builtin.formats.sizes import PIECES, different_values
from segplug_builtin.formats.tiff import size_of_tiff, tiff_array

SPACING = (999.0, 1.0, 1.0)
"""nnU-Net's for images without one."""

PNG = b"\x89PNG\r\n\x1a\n"


def read_natural_image(paths: Sequence[Path]) -> Image:
    """nnU-Net's NaturalImage2DIO: (c, 1, y, x) with spacing (999, 1, 1); RGB and RGBA give their channels.

    Palettes become RGB. 16-bit RGB PNGs come with their upper 8 bits, as Pillow reads them.

    Raises:
        DataError: a file is missing, truncated, damaged or no 2D image, or files of a case differ in size.
    """
    return stack_channels(paths, _read)


def size_of_natural_image(path: Path) -> ImageSize | None:
    """The size of one file's image."""
    if path.name.lower().endswith((".tif", ".tiff")):
        size = size_of_tiff(path)
        if size is None:
            return None
        shape, stored, taken = size
        if len(shape) == 3 and shape[-1] in (3, 4):
            shape = (shape[2], *shape[:2])
        elif len(shape) == 3 and shape[0] in (3, 4):
            shape = tuple(shape)
        elif len(shape) == 2:
            shape = (1, *shape)
        else:
            raise DataError(f"{path}: an image of shape {shape}; expected grey (y, x), RGB or RGBA (y, x, 3 or 4)")
        return ImageSize((shape[0], 1, *shape[1:]), SPACING, taken, different_values(stored))
    from PIL import Image as PillowImage

    with (
        reading(path, "a png or bmp image"),
        warnings.catch_warnings(action="ignore"),  # of large images
        PillowImage.open(path) as file,
    ):
        (width, height), mode = file.size, file.mode
        if mode == "P" and file.palette is not None:
            mode = file.palette.mode
    bands = PillowImage.getmodebands(mode)
    shape = (bands if bands in (3, 4) else 1, 1, height, width)
    # the file; Pillow's image, of four bytes where there are several bands; two copies of it; ours
    stored_bytes = 4 if bands > 1 or mode in ("I", "F") else 2 if mode.startswith("I;16") else 1
    taken = path.stat().st_size + (3 * stored_bytes + 4 * shape[0]) * height * width + PIECES
    return ImageSize(shape, SPACING, taken, None if mode in ("I", "F") else 256 ** min(stored_bytes, 2))


def write_natural_image(path: Path, labels: Labels) -> None:
    """Write a label map of one slice, 8 bits up to 254 labels, else 16 bits."""
    array = smallest_label_type(labels.array)
    if array.shape[0] != 1:
        raise DataError(f"{path}: a label map of {array.shape[0]} slices; this format holds one")
    if path.name.lower().endswith((".tif", ".tiff")):
        import tifffile

        tifffile.imwrite(path, array[0], photometric="minisblack")
        return
    if array.dtype.itemsize > (1 if path.name.lower().endswith(".bmp") else 2):
        raise DataError(f"{path}: the label {array.max()} does not fit this format; use png up to 65535, else tif")
    from PIL import Image as PillowImage

    PillowImage.fromarray(array[0]).save(path)


def _read(path: Path) -> Image:
    is_tiff = path.name.lower().endswith((".tif", ".tiff"))
    array = _rgb_last(tiff_array(path)) if is_tiff else _pillow_array(path)
    if array.ndim == 2:
        planes = array[None, None]
    elif array.ndim == 3 and array.shape[-1] in (3, 4):
        planes = array.transpose(2, 0, 1)[:, None]
    else:
        raise DataError(f"{path}: an image of shape {array.shape}; expected grey (y, x), RGB or RGBA (y, x, 3 or 4)")
    return Image(np.ascontiguousarray(planes, dtype=np.float32), Geometry(SPACING))


def _rgb_last(array: NDArray[Any]) -> NDArray[Any]:
    """Colours stored plane by plane; scikit-image, which nnU-Net reads with, turns them so."""
    if array.ndim > 2 and array.shape[-1] not in (3, 4) and array.shape[-3] in (3, 4):
        return np.moveaxis(array, -3, -1)
    return array


def _pillow_array(path: Path) -> NDArray[Any]:
    from PIL import Image as PillowImage

    content = read_whole(path)
    if content.startswith(PNG):
        _check_png(content, path)
    with reading(path, "a png or bmp image"), PillowImage.open(io.BytesIO(content)) as file:
        if file.mode != "P" or file.palette is None:
            return np.array(file)
        file.info.pop("transparency", None)  # the colours count; Pillow warns of what gets lost
        return np.array(file.convert(file.palette.mode))


def _check_png(content: bytes, path: Path) -> None:
    """Check every chunk's CRC and that the last chunk is there; Pillow does not, for the voxels."""
    position = len(PNG)
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        name = content[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(content):
            break
        (expected,) = struct.unpack_from(">I", content, end - 4)
        if zlib.crc32(content[position + 4 : end - 4]) != expected:
            shown = name.decode("latin-1")
            raise DataError(f"{path}: damaged: the checksum of chunk {shown!r} does not fit its content. {RESTORE}")
        if name == b"IEND":
            return
        position = end
    raise DataError(f"{path}: truncated: the PNG ends before its last chunk. {RESTORE}")
