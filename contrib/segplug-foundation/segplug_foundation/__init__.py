"""Tells segplug what segplug-foundation provides. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator

from segplug import Component, hookimpl
from segplug.protocols import Architecture, Planner

NAME = "timm_unet"
"""Of the architecture, and of its planner."""


@hookimpl
def segplug_architectures() -> Iterator[Component[Architecture]]:
    yield Component(NAME, f"{__name__}.networks:build_timm_unet", "2D U-Net on an encoder of timm")


@hookimpl
def segplug_planners() -> Iterator[Component[Planner]]:
    yield Component(NAME, f"{__name__}.planner:plan_timm_unet", "plans for timm_unet: 2d, of the encoder's topology")
