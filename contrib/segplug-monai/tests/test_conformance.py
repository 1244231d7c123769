"""What every architecture, planner and loss has to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from segplug.testing import BoundCheck, conformance

SMALL: dict[str, tuple[dict[str, Any], list[tuple[int, ...]]]] = {
    "monai_dynunet": ({"filters": [4, 8, 16, 16]}, [(32, 16, 16), (32, 40)]),
    "monai_segresnet": ({"init_filters": 8}, [(16, 24, 16), (32, 40)]),
    "monai_unetr": ({"feature_size": 4, "hidden_size": 48, "mlp_dim": 64, "num_heads": 4}, [(32, 16, 16), (32, 48)]),
    "monai_swinunetr": ({"feature_size": 12}, [(64, 32, 32), (64, 64)]),
}
"""Options that make each network small, and patches to check it with in three and two dimensions."""

LOSSES: list[tuple[str, dict[str, Any]]] = [
    ("monai_tversky", {}),
    ("monai_tversky", {"alpha": 0.5, "beta": 0.5}),
    ("monai_focal", {}),
    ("monai_focal", {"gamma": 0.0, "class_weights": [1.0, 2.0, 3.0]}),
    ("monai_generalized_dice", {}),
    ("monai_generalized_dice", {"weighting": "simple"}),
    ("monai_hausdorff", {}),
    ("monai_hausdorff", {"log": False, "weight_dice": 0.5}),
]


def options_of(name: str, axes: int) -> dict[str, Any]:
    """Options of a small network."""
    options = dict(SMALL[name][0])
    if name == "monai_dynunet":
        options |= {"kernel_size": [[3] * axes] * 4, "strides": [[1] * axes, *[[2] * axes] * 3]}
    return options


def checks() -> Iterator[Any]:
    for name, (_, patches) in SMALL.items():
        for patch in patches:
            for number, each in enumerate(
                conformance("architectures", name, options_of(name, len(patch)), patch_size=patch)
            ):
                yield pytest.param(each, id=f"architectures-{name}-{len(patch)}d-{number}")
    for name in SMALL:
        for number, each in enumerate(conformance("planners", name)):
            yield pytest.param(each, id=f"planners-{name}-{number}")
    for index, (name, options) in enumerate(LOSSES):
        for number, each in enumerate(conformance("losses", name, options)):
            yield pytest.param(each, id=f"losses-{name}-{index}-{number}")


@pytest.mark.parametrize("check", list(checks()))
def test_conformance(check: BoundCheck) -> None:
    check()
