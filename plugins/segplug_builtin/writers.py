"""Built-in writers, and the rule by which one is chosen for a file name."""

from __future__ import annotations

from pathlib import Path

from segplug_builtin.formats.itk import write_simpleitk, write_simpleitk_reorient
from segplug_builtin.formats.natural import write_natural_image
from segplug_builtin.formats.nibabel_images import write_nibabel, write_nibabel_reorient
from segplug_builtin.formats.tiff import write_tiff_stack

__all__ = [
    "write_natural_image",
    "write_nibabel",
    "write_nibabel_reorient",
    "write_simpleitk",
    "write_simpleitk_reorient",
    "write_tiff_stack",
    "writer_for",
]

BY_ENDING = (
    ((".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".gipl"), "SimpleITKIO"),
    ((".tif", ".tiff"), "Tiff3DIO"),
    ((".png", ".bmp"), "NaturalImage2DIO"),
)
"""SimpleITK places NIfTI labels from any reader's geometry, which has ITK's axes; nibabel's need its own header."""


def writer_for(path: Path) -> str | None:
    """nnU-Net's name of the writer for a file name, for readers that have no writer; None if none fits."""
    name = path.name.lower()
    return next((writer for endings, writer in BY_ENDING if name.endswith(endings)), None)
