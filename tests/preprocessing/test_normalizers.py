"""The five normalisations against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from segplug.errors import DataError
from segplug.kernel import Kernel
from segplug.model import ChannelStatistics

STATISTICS = ChannelStatistics(40.0, 35.0, 20.0, -500.0, 900.0, 100.0, -20.0)
RANDOM = np.random.default_rng(0)
CHANNEL = (RANDOM.standard_normal((9, 40, 50)) * 60 + 30).astype(np.float32)
MASK = RANDOM.random(CHANNEL.shape) < 0.4


def apply(name: str, channel: np.ndarray, mask: np.ndarray | None = None, statistics: object = None) -> np.ndarray:
    result = Kernel(discover=False).registry.build("normalizers", name)(channel.copy(), mask, statistics)
    assert result.dtype == np.float32
    return result


@pytest.mark.parametrize("offset", [0, 1e4])
def test_zscore(offset: float) -> None:
    channel = CHANNEL + np.float32(offset)
    exact = (channel.astype(float) - channel.mean(dtype=float)) / channel.std(dtype=float)
    found = apply("ZScoreNormalization", channel)
    assert np.abs(found - exact).max() < 1e-5 * np.ptp(exact)


def test_zscore_in_the_mask() -> None:
    found = apply("ZScoreNormalization", CHANNEL, MASK)
    inside = CHANNEL[MASK].astype(float)
    assert np.abs(found[MASK] - (inside - inside.mean()) / inside.std()).max() < 1e-5
    assert np.array_equal(found[~MASK], CHANNEL[~MASK])
    assert np.array_equal(apply("ZScoreNormalization", CHANNEL, np.zeros_like(MASK)), CHANNEL)


def test_constant_channels_become_zero() -> None:
    flat = np.full((2, 3, 4), 7, np.float32)
    assert not apply("ZScoreNormalization", flat).any()
    assert not apply("RescaleTo01Normalization", flat).any()


def test_ct() -> None:
    found = apply("CTNormalization", CHANNEL, MASK, STATISTICS)
    assert np.allclose(found, (np.clip(CHANNEL, -20, 100) - 40) / 20, atol=1e-5)
    with pytest.raises(DataError, match="no intensity statistics"):
        apply("CTNormalization", CHANNEL)


def test_ranges() -> None:
    assert np.array_equal(apply("NoNormalization", CHANNEL), CHANNEL)
    found = apply("RescaleTo01Normalization", CHANNEL)
    assert (found.min(), found.max()) == (0, 1)
    assert np.allclose(found, (CHANNEL - CHANNEL.min()) / np.ptp(CHANNEL), atol=1e-6)
    colours = np.arange(256, dtype=np.float32).reshape(1, 16, 16)
    assert np.allclose(apply("RGBTo01Normalization", colours), colours / 255)
    with pytest.raises(DataError, match="from -1 to 255, expected 0 to 255"):
        apply("RGBTo01Normalization", np.array([[[-1, 255]]], np.float32))
