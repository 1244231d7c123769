"""Tells segplug what segplug-zarr provides. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from segplug import Component, hookimpl
from segplug.protocols import Reader, Writer

NAME = "ome_zarr"
ENDINGS = (".zarr", ".zarr.zip", ".ozx")
"""Of file names: `.ome.zarr` too. A zip is `.zarr.zip` or, as NGFF's RFC 9 has it, `.ozx`."""


@hookimpl
def segplug_readers() -> Iterator[Component[Reader]]:
    yield Component(
        NAME, f"{__name__}.images:ome_zarr", "OME-Zarr (NGFF 0.4, 0.5): folder, zip, or a file with its URL"
    )


@hookimpl
def segplug_writers() -> Iterator[Component[Writer]]:
    yield Component(NAME, f"{__name__}.label_maps:write_ome_zarr", "OME-Zarr label images, with a pyramid")


@hookimpl
def segplug_choose_reader(path: Path) -> str | None:
    return NAME if path.name.lower().endswith(ENDINGS) else None


@hookimpl
def segplug_choose_writer(path: Path) -> str | None:
    return NAME if path.name.lower().endswith(ENDINGS) else None
