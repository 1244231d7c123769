"""What every reader and every writer has to do."""

from __future__ import annotations

import pytest

from segplug.testing import BoundCheck, conformance


@pytest.mark.parametrize(
    "check",
    [
        each
        for ending in (".ome.zarr", ".zarr.zip", ".ozx")
        for kind in ("readers", "writers")
        for each in conformance(kind, "ome_zarr", ending=ending)
    ],
    ids=lambda each: f"{each.subject.kind} {each.subject.ending}: {each}",
)
def test_conformance(check: BoundCheck) -> None:
    check()
