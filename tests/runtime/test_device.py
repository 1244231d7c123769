"""Which numbers are computed with."""

from __future__ import annotations

import pytest
import torch

from segplug.runtime import device

CPU = torch.device("cpu")


def test_bf16_in_software_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: False)
    with pytest.warns(UserWarning, match="no instructions for it.*--precision auto"):
        assert device.resolve_precision("bf16", CPU) == "bf16"
    assert device.resolve_precision("auto", CPU) == "fp32"  # and no warning, which would be an error


def test_bf16_in_hardware_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: True)
    assert [device.resolve_precision(name, CPU) for name in ("auto", "bf16", "fp32")] == ["bf16", "bf16", "fp32"]
