"""NIfTI images and label maps through nibabel, in the axis order and with the spacing that nnU-Net gives them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import Geometry, Image, Labels
from segplug.protocols import ImageSize
from segplug.runtime.geometry import DOUBTS
from segplug_builtin.formats.channels import flat_geometry, stack_channels
from segplug_builtin.formats.damage import read_whole, reading
from segplug_builtin.formats.label_type import smallest_label_type
from segplug_builtin.formats.nifti import (
    HEADER,
    check_nifti,
    label_file,
    read_layout,
    spacing_doubts,
    write_content,
)
from segplug_builtin.formats.sizes import PIECES, different_values

LPS = np.diag([-1.0, -1.0, 1.0])
"""NIfTI's world is RAS; a `Geometry` has ITK's, LPS."""

TURNED = "turned_to_ras"


def read_nibabel(paths: Sequence[Path]) -> Image:
    """nnU-Net's NibabelIO: (c, z, y, x) with the header's zooms. 2D and 4D files are read as SimpleITK's reader does.

    Raises:
        DataError: a file is missing, truncated, damaged or no NIfTI, or channels do not lie on one grid.
    """
    return stack_channels(paths, partial(_read, turn=False))


def read_nibabel_reorient(paths: Sequence[Path]) -> Image:
    """nnU-Net's NibabelIOWithReorient: the same, axes swapped and turned to RAS.

    Raises:
        DataError: as `read_nibabel`.
    """
    return stack_channels(paths, partial(_read, turn=True))


def size_by_nibabel(path: Path, turn: bool = False) -> ImageSize | None:
    """The size of one file's image."""
    import nibabel
    from nibabel.orientations import io_orientation

    content = read_layout(path)
    if content is None or not 2 <= len(content.shape) <= 4 or (turn and len(content.shape) == 2):
        return None
    header = nibabel.Nifti1Header(content.header, check=False)
    shape, zooms = content.shape, [float(z) for z in header.get_zooms()[:3]]
    if turn:
        order = [int(axis) for axis in io_orientation(header.get_best_affine())[:, 0]]
        spatial = shape[::-1][:3]
        shape = (*shape[:-3], *(spatial[order.index(axis)] for axis in (2, 1, 0)))
        zooms = [zooms[order.index(axis)] for axis in range(3)]
    spacing = flat_geometry((zooms[1], zooms[0])) if len(zooms) == 2 else tuple(reversed(zooms))
    stored, voxels = content.kind.itemsize, prod(shape)
    # the file and its content; voxels, turned; scaled in float64; as float32, and in our order
    taken = path.stat().st_size + voxels * (3 * stored + 8 + 4 + 4) + PIECES
    image = (1, 1, *shape) if len(shape) == 2 else (1, *shape) if len(shape) == 3 else shape
    return ImageSize(image, spacing, taken, different_values(content.kind))


def write_nibabel(path: Path, labels: Labels) -> None:
    """Write a label map with the header of its image, bit by bit where geometry is concerned."""
    _write(path, smallest_label_type(labels.array), labels.geometry)


def write_nibabel_reorient(path: Path, labels: Labels) -> None:
    """Write a label map, turned back to the orientation of its file."""
    array = smallest_label_type(labels.array)
    if labels.geometry.extra.get(TURNED):
        from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform

        back = ornt_transform(axcodes2ornt("RAS"), np.asarray(labels.geometry.extra[TURNED]))
        array = np.ascontiguousarray(apply_orientation(array.transpose(), back).transpose())
    _write(path, array, labels.geometry)


def _read(path: Path, turn: bool) -> Image:
    import nibabel
    from nibabel.orientations import io_orientation

    content = read_whole(path)
    check_nifti(content, path)  # nibabel sets aside what the header promises before it looks
    kind = nibabel.Nifti2Image if content[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nibabel.Nifti1Image
    with reading(path, "a NIfTI file (.nii, .nii.gz)"):
        image = kind.from_bytes(content)
        if not 2 <= image.ndim <= 4:
            raise DataError(f"{path}: {image.ndim} axes; expected two, three, or four of which the last are channels")
        extra: dict[str, Any] = {HEADER: image.header.binaryblock.hex()}
        found = spacing_doubts(image.header.binaryblock)
        if found:
            extra[DOUBTS] = found
        if turn:
            if image.ndim == 2:
                raise DataError(f"{path}: two axes; only volumes can be reoriented")
            orientation = io_orientation(image.affine)
            extra[TURNED] = orientation.tolist()
            image = image.as_reoriented(orientation)
        zooms = tuple(float(z) for z in image.header.get_zooms()[:3])
        array = np.ascontiguousarray(_values(image).transpose())
    array = array[None, None] if array.ndim == 2 else array[None] if array.ndim == 3 else array
    spacing = flat_geometry((zooms[1], zooms[0])) if len(zooms) == 2 else tuple(reversed(zooms))
    affine = LPS @ image.affine[:3]
    with np.errstate(divide="ignore", invalid="ignore"):
        direction = affine[:, :3] / np.linalg.norm(affine[:, :3], axis=0)
    axes = min(len(zooms), 3)
    direction = direction[:axes, :axes]
    return Image(array, Geometry(spacing, tuple(affine[:axes, 3].tolist()), tuple(direction.ravel().tolist()), extra))


def _values(image: Any) -> NDArray[np.float32]:
    """Voxel values as float32, scaled in float64 where the header asks for it."""
    slope, intercept = image.header.get_slope_inter()
    if slope in (None, 1) and intercept in (None, 0):
        values = np.asanyarray(image.dataobj)
    else:
        values = image.get_fdata(dtype=np.float64, caching="unchanged")
    return np.asarray(values, dtype=np.float32)


def _write(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    content = label_file(array, geometry.extra)
    if content is not None:
        write_content(path, content)
        return
    import nibabel

    affine = np.eye(4)
    spacing = tuple(reversed(geometry.spacing))
    axes = len(geometry.origin) or 3
    array = array[0] if axes == 2 else array
    direction = np.eye(3)
    if geometry.origin:
        direction[:axes, :axes] = np.reshape(geometry.direction, (axes, axes))
        affine[:axes, 3] = geometry.origin
    affine[:3, :3] = direction * (spacing if axes == 3 else (*spacing[:2], 1))
    affine[:3] = LPS @ affine[:3]
    write_content(path, nibabel.Nifti1Image(array.transpose(), affine).to_bytes())
