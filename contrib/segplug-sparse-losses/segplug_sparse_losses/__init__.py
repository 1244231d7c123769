"""Tells segplug what segplug-sparse-losses provides. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator

from segplug import Component, hookimpl
from segplug.protocols import Loss


@hookimpl
def segplug_losses() -> Iterator[Component[Loss]]:
    yield Component(
        "dice_ce",
        f"{__name__}.boundary:DiceCrossEntropyBoundary",
        "soft Dice + cross-entropy + boundary loss (Kervadec 2019)",
        replaces=True,
    )
    yield Component(
        "cldice",
        f"{__name__}.cldice:DiceClDice",
        "soft Dice + soft clDice of centre lines (Shit 2021) + cross-entropy",
    )
