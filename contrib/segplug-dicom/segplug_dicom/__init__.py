"""Tells segplug what segplug-dicom provides. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from segplug import Component, hookimpl
from segplug.protocols import Reader, Writer

NAME = "dicom"
ENDINGS = (".dcm", ".dcm.zip")
"""Of file names: `.dcm` is a folder of a series or a single file, `.dcm.zip` a zip of such a folder."""


@hookimpl
def segplug_readers() -> Iterator[Component[Reader]]:
    yield Component(
        NAME, f"{__name__}.images:read_dicom", "DICOM: a series as a folder or zip, enhanced files, DICOM-SEG"
    )


@hookimpl
def segplug_writers() -> Iterator[Component[Writer]]:
    yield Component(NAME, f"{__name__}.segmentations:write_dicom_seg", "DICOM-SEG, a segment per label")


@hookimpl
def segplug_choose_reader(path: Path) -> str | None:
    return NAME if path.name.lower().endswith(ENDINGS) else None


@hookimpl
def segplug_choose_writer(path: Path) -> str | None:
    return NAME if path.name.lower().endswith(ENDINGS) else None
