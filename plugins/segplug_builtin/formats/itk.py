"""Images and label maps through SimpleITK, in the axis order and with the spacing that nnU-Net gives them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import Geometry, Image, Labels
from segplug.protocols import ImageSize
from segplug.runtime.geometry import DOUBTS
from segplug_builtin.formats.channels import flat_geometry, stack_channels
from segplug_builtin.formats.damage import DEFLATE_RATIO, check_itk_payload, check_promise, reading
from segplug_builtin.formats.label_type import smallest_label_type
from segplug_builtin.formats.nifti import (
    HEADER,
    NiftiContent,
    is_nifti,
    label_file,
    placement_of,
    plainly_rectangular,
    read_layout,
    read_nifti,
    read_scaled,
    spacing_doubts,
    write_content,
)
from segplug_builtin.formats.sizes import PIECES, different_values, outline

FORMATS = "a NIfTI, NRRD, MetaImage or GIPL file that ITK reads"
TURNED = "turned"
"""Key under `Geometry.extra` of a reoriented image: the file's own orientation code, spacing, origin and direction."""


ORTHONORMAL = 1e-3
"""By how much products of direction cosines may differ from those of axes at right angles; headers are rounded."""


def read_simpleitk(paths: Sequence[Path]) -> Image:
    """nnU-Net's SimpleITKIO: (c, z, y, x); 2D files become one slice; the fourth axis of a 4D file is channels.

    Args:
        paths: one file per channel, or one for all.

    Raises:
        DataError: a file is missing, truncated, damaged or of another format, or channels do not lie on one grid.
    """
    return stack_channels(paths, _read)


def surely_reads(path: Path, large: int) -> bool:
    """Whether ITK reads a file, if that can be told without it: to import it takes longer than to read small images.

    Args:
        large: bytes of an image from which on nothing but its header is read.

    Raises:
        DataError: the file is damaged.
    """
    content = read_layout(path) if is_nifti(path) else None
    if content is None or len(content.shape) != 3 or not plainly_rectangular(content.header):
        return False
    return 4 * math.prod(content.shape) >= large or read_scaled(path) is not None


def size_by_simpleitk(path: Path) -> ImageSize | None:
    """The size of one file's image."""
    content = read_layout(path) if is_nifti(path) else None
    with reading(path, FORMATS):
        if content is not None:
            grid = _meaning(content, path)
            if grid.components == 1:  # it is read piece by piece
                image = _image(outline(tuple(reversed(grid.size))), grid, {}, path)
                taken = 4 * math.prod(image.array.shape) + PIECES
                return ImageSize(image.array.shape, image.spacing, taken, different_values(content.kind))
        grid, stored = _header(path), _stored_bytes(path)
        vector = (grid.components,) if grid.components > 1 else ()
        image = _image(outline((*vector, *reversed(grid.size))), grid, {}, path)
        voxels = math.prod(image.array.shape)
        # the file, unpacked for its checksum or by ITK; ITK's image; ours
        taken = path.stat().st_size + (2 * stored + 4) * voxels + PIECES
        return ImageSize(image.array.shape, image.spacing, taken, 256**stored if stored <= 2 else None)


def size_by_simpleitk_reorient(path: Path) -> ImageSize | None:
    """The size of one file's image, which is turned: its axes change places by what the header says."""
    with reading(path, FORMATS):
        grid, stored = _header(path), _stored_bytes(path)
        if len(grid.size) != 3 or grid.components != 1:
            return None
        found = np.abs(np.reshape(grid.direction, (3, 3))).argmax(axis=0).tolist()
        if sorted(found) != [0, 1, 2]:
            return None
        sizes = [grid.size[found.index(axis)] for axis in (2, 1, 0)]
        spacing = tuple(abs(grid.spacing[found.index(axis)]) for axis in (2, 1, 0))
        taken = path.stat().st_size + (3 * stored + 4) * math.prod(sizes) + PIECES
        return ImageSize((1, *sizes), spacing, taken, 256**stored if stored <= 2 else None)


def _stored_bytes(path: Path) -> int:
    """Bytes of one number of a file, as ITK reads it."""
    header = _sitk().ImageFileReader()
    header.SetFileName(str(path))
    header.ReadImageInformation()
    found = re.search(r"(\d+)-bit", _sitk().GetPixelIDValueAsString(header.GetPixelID()))
    return 8 if found is None else int(found[1]) // 8


def read_simpleitk_reorient(paths: Sequence[Path], orientation: str = "RAS") -> Image:
    """nnU-Net's SimpleITKIOWithReorient: the same, axes swapped and turned to `orientation` (ITK's letters).

    Raises:
        DataError: as `read_simpleitk`; also for files with two or four axes.
    """
    return stack_channels(paths, partial(_read_turned, orientation=orientation))


def write_simpleitk(path: Path, labels: Labels) -> None:
    """Write a label map in the geometry of its image. NIfTI headers are kept bit by bit where the image had one."""
    array = smallest_label_type(labels.array)
    content = label_file(array, labels.geometry.extra) if is_nifti(path) else None
    if content is not None:
        write_content(path, content)
        return
    sitk = _sitk()
    axes = len(labels.geometry.origin) or 3
    image = sitk.GetImageFromArray(array[0] if axes == 2 else array)
    image.SetSpacing(_itk_spacing(labels.geometry)[:axes])
    if labels.geometry.origin:
        image.SetOrigin(labels.geometry.origin)
        image.SetDirection(labels.geometry.direction)
    _write(image, path)


def write_simpleitk_reorient(path: Path, labels: Labels) -> None:
    """Write a label map, turned back to the orientation of its file."""
    sitk = _sitk()
    turned = labels.geometry.extra.get(TURNED)
    if turned is None:
        write_simpleitk(path, labels)
        return
    image = sitk.GetImageFromArray(smallest_label_type(labels.array))
    image.SetSpacing(_itk_spacing(labels.geometry))
    image.SetOrigin(labels.geometry.origin)
    image.SetDirection(labels.geometry.direction)
    image = sitk.DICOMOrient(image, turned["orientation"])
    content = label_file(sitk.GetArrayFromImage(image), labels.geometry.extra) if is_nifti(path) else None
    if content is not None:
        write_content(path, content)
        return
    # turning moves the origin by rounding; the file's own numbers are known
    image.SetSpacing(tuple(turned["spacing"]))
    image.SetOrigin(tuple(turned["origin"]))
    image.SetDirection(tuple(turned["direction"]))
    _write(image, path)


@cache
def _sitk() -> Any:
    """SimpleITK, without the warnings that it writes to standard error: what they tell is checked here (`_doubts`)."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def _read(path: Path) -> Image:
    sitk = _sitk()
    extra = {}
    if not is_nifti(path):
        check_itk_payload(path)
    elif (found := read_scaled(path)) is not None:
        content, array = found
        extra = {HEADER: content.header.hex()}
        with reading(path, FORMATS):
            grid = _meaning(content, path)
            if grid.components == 1:  # voxels are decompressed and checked already
                return _image(array.reshape(tuple(reversed(grid.size))), grid, extra, path)
        del found, array
    elif (unusual := read_nifti(path)) is not None:
        extra = {HEADER: unusual.header.hex()}
    with reading(path, FORMATS):
        _header(path)
        image = sitk.ReadImage(str(path))
        return _image(_array(image, path), _Grid.of(image), extra, path)


@dataclass(frozen=True)
class _Grid:
    """What ITK makes of a header, axes in its order."""

    size: tuple[int, ...]
    components: int
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, itk: Any) -> _Grid:
        """Of an image, or of a reader that has read a header."""
        reader = hasattr(itk, "ReadImageInformation")
        components = itk.GetNumberOfComponents() if reader else itk.GetNumberOfComponentsPerPixel()
        return cls(itk.GetSize(), components, itk.GetSpacing(), itk.GetOrigin(), itk.GetDirection())


def _meaning(content: NiftiContent, path: Path) -> _Grid:
    """What ITK makes of a NIfTI-1 header: by a file that holds nothing else.

    ITK unpacks the beginning of a .nii.gz several times, which takes longer than to read a small image. What it says of
    one header holds for all that differ in nothing but their numbers of voxels.
    """
    try:
        found = _meaning_of(placement_of(content.header))
    except _NotOrthonormalError:
        raise _not_orthonormal(path) from None
    return replace(found, size=content.shape[::-1][: len(found.size)])


class _NotOrthonormalError(Exception):
    pass


@lru_cache(maxsize=64)
def _meaning_of(header: bytes) -> _Grid:
    with NamedTemporaryFile(prefix="segplug-", suffix=".nii") as file:
        file.write(header + bytes(4))
        file.flush()
        return _information(file.name, "NiftiImageIO")


def _information(file: str, io: str = "") -> _Grid:
    """What ITK's reader finds in the header of `file`."""
    header = _sitk().ImageFileReader()
    header.SetFileName(file)
    header.SetImageIO(io)
    try:
        header.ReadImageInformation()
    except RuntimeError as error:
        if "orthonormal" not in str(error):
            raise
        raise _NotOrthonormalError from None
    return _Grid.of(header)


def _not_orthonormal(path: Path) -> DataError:
    return DataError(
        f"{path}: its axes are not at right angles to each other (sform, qform), which ITK does not read; expected "
        "an image on a rectangular grid. Resample it to one, or correct its header"
    )


def _header(path: Path) -> _Grid:
    """What ITK makes of a file's header. It sets aside the memory that the header asks for before it looks further.

    Raises:
        DataError: no file of this size can hold what the header promises.
    """
    try:
        header = _information(str(path))
    except _NotOrthonormalError:
        raise _not_orthonormal(path) from None
    if path.suffix.lower() not in (".mhd", ".nhdr"):  # their voxels stand in another file
        promised = math.prod(header.size) * header.components  # of one byte at least
        check_promise(promised, path.stat().st_size * DEFLATE_RATIO, path)
    return header


def _read_turned(path: Path, orientation: str) -> Image:
    sitk = _sitk()
    extra: dict[str, Any] = {}
    if is_nifti(path):
        content = read_nifti(path)
        extra = {} if content is None else {HEADER: content.header.hex()}
    else:
        check_itk_payload(path)
    with reading(path, f"{FORMATS}, with three axes"):
        _header(path)
        image = sitk.ReadImage(str(path))
        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            raise DataError(f"{path}: {image.GetDimension()} axes; only volumes of one channel can be reoriented")
        direction = image.GetDirection()
        extra[TURNED] = {
            "orientation": sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(direction),
            "spacing": image.GetSpacing(),
            "origin": image.GetOrigin(),
            "direction": direction,
        }
        image = sitk.DICOMOrient(image, orientation)
        return _image(_array(image, path), _Grid.of(image), extra, path)


def _array(image: Any, path: Path) -> NDArray[np.float32]:
    """Voxels as float32, channels of vector pixels as first axis."""
    view = _sitk().GetArrayViewFromImage(image)
    if view.dtype.kind == "c":
        raise DataError(f"{path}: complex voxels; expected real numbers. Save magnitude and phase as channels")
    if image.GetNumberOfComponentsPerPixel() > 1:
        view = np.moveaxis(view, -1, 0)
        view = view[:, None] if view.ndim == 3 else view
    return np.array(view, dtype=np.float32, order="C")


def _image(array: NDArray[np.float32], grid: _Grid, extra: dict[str, Any], path: Path) -> Image:
    """Bring an array in ITK's order to (c, z, y, x), with the geometry of the grid."""
    spacing, origin, direction = grid.spacing, grid.origin, grid.direction
    axes = len(spacing)
    vector = array.ndim > axes
    if axes == 4 and not vector:  # several channels in one file: their axis has no place in the world
        spacing, origin = spacing[:3], origin[:3]
        direction = tuple(direction[4 * row + column] for row in range(3) for column in range(3))
    elif axes == 2:
        array = array if vector else array[None, None]
    elif axes == 3:
        array = array if vector else array[None]
    else:
        raise DataError(f"{path}: {axes} axes; expected two, three, or four of which the last are channels")
    ordered = tuple(abs(s) for s in reversed(spacing))
    in_array = flat_geometry((ordered[0], ordered[1])) if len(ordered) == 2 else ordered
    found = _doubts(direction, extra)
    return Image(
        array, Geometry(in_array, tuple(origin), tuple(direction), {**extra, DOUBTS: found} if found else extra)
    )


def _doubts(direction: Sequence[float], extra: Mapping[str, Any]) -> list[list[str]]:
    """What ITK passes over, or only warns of, in a header that it reads."""
    found = spacing_doubts(bytes.fromhex(extra[HEADER])) if HEADER in extra else []
    axes = math.isqrt(len(direction))
    columns = [direction[axis::axes] for axis in range(axes)]
    products = [
        math.fsum(a * b for a, b in zip(one, other, strict=True)) - (row == column)
        for row, one in enumerate(columns)
        for column, other in enumerate(columns)
    ]
    if not all(abs(product) <= ORTHONORMAL for product in products):  # NaN too
        listed = ", ".join(f"{v:.4g}" for v in direction)
        remedy = "Resample the image to a rectangular grid, or correct its header"
        found.append(["direction not orthonormal", f"direction cosines ({listed})", "axes at right angles", remedy])
    return found


def _itk_spacing(geometry: Geometry) -> tuple[float, ...]:
    return tuple(reversed(geometry.spacing))


def _write(image: Any, path: Path) -> None:
    try:
        _sitk().WriteImage(image, str(path), True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{path}: cannot be written: {reason}. Check the file ending and free space") from error
