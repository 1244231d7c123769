"""Learning rates that fall from the decoder to the stem: what all pictures have in common is learnt slowest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segplug.errors import DataError
from segplug_foundation import NAME

if TYPE_CHECKING:
    from torch import nn

MODEL = "encoder.model"
"""Where timm's model is in a `TimmUNet`."""


def stage_factors(encoder: nn.Module, decay: float, name: str) -> dict[str, float]:
    """Part of the network -> factor of its learning rate, for the setting `trainer.lr_factors`.

    The stages are timm's own (`group_matcher`, its coarse form): blocks of a transformer, stages of a convolutional
    network, and the stem before them. The last one learns by `decay`, the one before by its square, and so on. What is
    not named here, the decoder, learns by 1.

    Args:
        encoder: of `build_encoder`.
        name: of the encoder, for messages.

    Raises:
        DataError: the decay is not in (0, 1], or timm does not tell the model's stages.
    """
    from segplug_foundation.timm_library import timm

    check_decay(decay)
    if decay == 1:
        return {}
    model: Any = encoder.model
    if not hasattr(model, "group_matcher"):
        raise DataError(
            f"planner {NAME}: timm does not tell the stages of {name!r}, so they cannot learn by rates of their own. "
            "Leave layer_decay out; trainer.lr_factors.encoder=0.1 holds for the whole encoder"
        )
    numbers: dict[str, int] = timm().models.group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    # timm counts what no stage holds as the last one of all
    last = max(numbers.values())
    parts = _parts({f"{MODEL}.{weight}": number for weight, number in numbers.items()}, MODEL)
    # significant digits rather than decimals: the first blocks of a deep transformer would get 0
    return {part: float(f"{decay ** (last + 1 - number):.4g}") for part, number in parts.items()}


def check_decay(decay: float) -> None:
    """Refuse another than one in (0, 1].

    Raises:
        DataError: it is.
    """
    if not 0 < decay <= 1:
        raise DataError(f"planner {NAME}: layer_decay {decay}; expected more than 0, and at most 1")


def _parts(numbers: Mapping[str, int], part: str) -> dict[str, int]:
    """The fewest modules whose weights are all of one stage, below `part`."""
    found: dict[str, int] = {}
    depth = part.count(".") + 2
    names = dict.fromkeys(".".join(name.split(".")[:depth]) for name in numbers)
    for each in names:
        inside = {name: number for name, number in numbers.items() if name == each or name.startswith(f"{each}.")}
        stages = set(inside.values())
        found |= {each: stages.pop()} if len(stages) == 1 else _parts(inside, each)
    return found
