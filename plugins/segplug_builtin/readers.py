"""Built-in readers, and the rule by which one is chosen for a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from segplug.errors import DataError
from segplug.model import Image
from segplug_builtin.formats.itk import read_simpleitk, read_simpleitk_reorient
from segplug_builtin.formats.natural import read_natural_image
from segplug_builtin.formats.nibabel_images import read_nibabel, read_nibabel_reorient
from segplug_builtin.formats.tiff import read_tiff_stack

__all__ = [
    "first_that_reads",
    "read_natural_image",
    "read_nibabel",
    "read_nibabel_reorient",
    "read_simpleitk",
    "read_simpleitk_reorient",
    "read_tiff_stack",
]

ORDER: tuple[tuple[str, tuple[str, ...], Callable[[Sequence[Path]], Image]], ...] = (
    ("NaturalImage2DIO", (".png", ".bmp", ".tif"), read_natural_image),
    ("SimpleITKIO", (".nii.gz", ".nrrd", ".mha", ".gipl"), read_simpleitk),
    ("Tiff3DIO", (".tif", ".tiff"), read_tiff_stack),
    ("NibabelIO", (".nii", ".nii.gz"), read_nibabel),
    ("NibabelIOWithReorient", (".nii", ".nii.gz"), read_nibabel_reorient),
)
"""nnU-Net's readers by its names, the file endings each is tried for, in its order. SimpleITKIOWithReorient is only
used where dataset.json names it."""


def first_that_reads(path: Path) -> str | None:
    """nnU-Net's name of the first reader that supports the file's ending and can read it; None if none can."""
    try:
        status = path.stat()
    except OSError:
        return None
    return _first(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _first(path: Path, size: int, changed: int) -> str | None:
    """For a file in this state: each stage of a run asks again."""
    for name, endings, read in ORDER:
        if path.name.lower().endswith(endings):
            try:
                read([path])
            except DataError:
                continue
            return name
    return None
