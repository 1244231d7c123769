from collections.abc import Iterator

from segplug import Component, hookimpl
from segplug.protocols import Loss


@hookimpl
def segplug_losses() -> Iterator[Component[Loss]]:
    yield Component("dice_focal", "segplug_focal.loss:DiceFocal", "soft Dice + focal loss")
