"""What every architecture and planner has to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from segplug.testing import BoundCheck, conformance

ENCODERS: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "convnext_atto": {"depths": [1, 1, 1, 1]},
    "swin_tiny_patch4_window7_224": {"depths": [1, 1, 1, 1], "embed_dim": 24},
}


def checks() -> Iterator[Any]:
    for name, options in ENCODERS.items():
        given = {"encoder": name, "encoder_options": options, "decoder_base": 8}
        for number, each in enumerate(conformance("architectures", "timm_unet", given, patch_size=(64, 96))):
            yield pytest.param(each, id=f"architectures-{name}-{number}")
    for number, each in enumerate(conformance("planners", "timm_unet")):
        yield pytest.param(each, id=f"planners-{number}")


@pytest.mark.parametrize("check", list(checks()))
def test_conformance(check: BoundCheck) -> None:
    check()
