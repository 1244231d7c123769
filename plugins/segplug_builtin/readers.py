"""Built-in readers, and the rule by which one is chosen for a file."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

from segplug.errors import DataError
from segplug_builtin.formats import itk, natural, nibabel_images, tiff
from segplug_builtin.formats.sizes import FileReader

read_simpleitk = FileReader(itk.read_simpleitk, itk.size_by_simpleitk)
read_simpleitk_reorient = FileReader(itk.read_simpleitk_reorient, itk.size_by_simpleitk_reorient)
read_nibabel = FileReader(nibabel_images.read_nibabel, nibabel_images.size_by_nibabel)
read_nibabel_reorient = FileReader(
    nibabel_images.read_nibabel_reorient, partial(nibabel_images.size_by_nibabel, turn=True)
)
read_tiff_stack = FileReader(tiff.read_tiff_stack, tiff.size_of_tiff_stack)
read_natural_image = FileReader(natural.read_natural_image, natural.size_of_natural_image)

LARGE = 1 << 26
"""Bytes that reading an image takes, from which on it is not read only to see whether it can be."""

ORDER: tuple[tuple[str, tuple[str, ...], FileReader], ...] = (
    ("NaturalImage2DIO", (".png", ".bmp", ".tif"), read_natural_image),
    ("SimpleITKIO", (".nii.gz", ".nrrd", ".mha", ".gipl"), read_simpleitk),
    ("Tiff3DIO", (".tif", ".tiff"), read_tiff_stack),
    ("NibabelIO", (".nii", ".nii.gz"), read_nibabel),
    ("NibabelIOWithReorient", (".nii", ".nii.gz"), read_nibabel_reorient),
)
"""nnU-Net's readers by its names, the file endings each is tried for, in its order. SimpleITKIOWithReorient is only
used where dataset.json names it."""


def first_that_reads(path: Path) -> str | None:
    """nnU-Net's name of the first reader that supports the file's ending and can read it; None if none can.

    Of a large image nothing but the header is read: damage behind it is told by what reads the image.
    """
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
                if read is read_simpleitk and itk.surely_reads(path, LARGE):
                    return name
                measured = read.size([path])
                if measured is None or measured.reading < LARGE:
                    read([path])
            except DataError:
                continue
            return name
    return None
