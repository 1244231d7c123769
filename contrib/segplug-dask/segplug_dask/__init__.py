"""Tells segplug what segplug-dask provides. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator

from segplug import Component, hookimpl
from segplug.protocols import Executor


@hookimpl
def segplug_executors() -> Iterator[Component[Executor]]:
    yield Component("dask", f"{__name__}.executor:DaskExecutor", "workers of dask.distributed, here or on a cluster")
