"""Volumes along the fourth axis of a NIfTI file, as files of their own with the very same place in the world."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

from segplug.errors import DataError
from segplug_builtin.formats.damage import GZIP, RESTORE
from segplug_builtin.formats.nifti import read_nifti, write_content

_SIZE = 348


def volumes_of(path: Path) -> tuple[int, bool]:
    """How many volumes a NIfTI-1 file holds, by its header, and whether they lie along a fourth axis.

    Raises:
        DataError: it is missing, damaged or no NIfTI-1 file, or has more axes, or fewer than three.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
        with gzip.open(path) if packed else path.open("rb") as content:
            header = content.read(_SIZE)
    except FileNotFoundError:
        raise DataError(f"{path}: found no such file; expected an image. {RESTORE}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: found a damaged file ({error}); expected a whole NIfTI file. {RESTORE}") from None
    order = next((o for o in "<>" if header[:4] == struct.pack(f"{o}i", _SIZE)), None)
    if order is None or len(header) < _SIZE:
        raise DataError(f"{path}: found no NIfTI-1 header; expected a NIfTI file. {RESTORE}")
    count, *sizes = struct.unpack_from(f"{order}8h", header, 40)
    axes = sizes[:count]
    while len(axes) > 3 and axes[-1] == 1:  # readers take no notice of such axes
        axes.pop()
    if len(axes) not in (3, 4):
        raise DataError(
            f"{path}: found {len(axes)} axes, {' x '.join(map(str, axes))}; expected three, or four of which the last "
            "are channels. Leave the case out in a copy of the source, or correct it"
        )
    return (axes[3], True) if len(axes) == 4 else (1, False)


def split_channels(targets: tuple[Path, ...], source: Path) -> None:
    """Write the volumes of a 4D file to one file each. Voxels, their type and scaling, and the geometry stay as stored.

    Raises:
        DataError: the file is damaged, holds another number of volumes, or is not NIfTI-1 with plain numbers.
    """
    content = read_nifti(source)
    if content is None or content.raw is None:
        raise DataError(
            f"{source}: found a NIfTI file of another kind; expected NIfTI-1 in one file whose voxels are plain "
            "numbers. Save it as such in a copy of the source"
        )
    *extra, volumes, depth, height, width = content.shape
    if volumes != len(targets) or any(n != 1 for n in extra):
        raise DataError(f"{source}: found {volumes} volumes; expected {len(targets)}. {RESTORE}")
    order = "<" if content.header[:4] == struct.pack("<i", _SIZE) else ">"
    header = bytearray(content.header)
    struct.pack_into(f"{order}8h", header, 40, 3, width, height, depth, 1, 1, 1, 1)
    struct.pack_into(f"{order}f", header, 108, _SIZE + 4)
    header[344:348] = b"n+1\0"
    stored = content.raw.reshape(volumes, -1)
    for target, volume in zip(targets, stored, strict=True):
        write_content(target, bytes(header) + bytes(4) + volume.tobytes())
