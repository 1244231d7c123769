"""Tells segplug what segplug-monai provides. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator

from segplug import Component, hookimpl
from segplug.protocols import Architecture, Loss, Planner

NETWORKS = {
    "dynunet": "MONAI's DynUNet: nnU-Net's topology, residual blocks if asked for",
    "segresnet": "MONAI's SegResNet: residual encoder, light decoder (Myronenko 2018)",
    "unetr": "MONAI's UNETR: transformer encoder, convolutional decoder (Hatamizadeh 2022)",
    "swinunetr": "MONAI's SwinUNETR: shifted-window transformer encoder (Hatamizadeh 2022)",
}


@hookimpl
def segplug_architectures() -> Iterator[Component[Architecture]]:
    for name, summary in NETWORKS.items():
        yield Component(f"monai_{name}", f"{__name__}.networks:build_{name}", summary)


@hookimpl
def segplug_planners() -> Iterator[Component[Planner]]:
    for name in NETWORKS:
        yield Component(f"monai_{name}", f"{__name__}.planners:plan_{name}", f"plans for the network monai_{name}")


@hookimpl
def segplug_losses() -> Iterator[Component[Loss]]:
    at = f"{__name__}.losses"
    yield Component("monai_tversky", f"{at}:tversky", "Tversky loss (Salehi 2017)")
    yield Component("monai_focal", f"{at}:MaskedFocal", "focal loss (Lin 2017)")
    yield Component("monai_generalized_dice", f"{at}:generalized_dice", "generalised Dice loss (Sudre 2017)")
    yield Component("monai_hausdorff", f"{at}:DiceHausdorff", "Dice + Hausdorff loss by distances (Karimi 2019)")
