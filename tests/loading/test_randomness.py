"""Random numbers belong to their key and to nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from segplug.runtime.randomness import generator, torch_seed

keys = st.lists(st.integers(0, 2000) | st.sampled_from(["train", "val", "all", "0", "1"]), max_size=5)


def test_numbers_stay_what_they_were_released_as() -> None:
    assert generator(12345, "train", 0, 3, 7, 1).integers(2**32, size=3).tolist() == [104983440, 578002343, 3060044336]
    assert torch_seed(12345, "epoch", 0, 3) == 5656572651959540124


@given(st.integers(0, 2**40), keys)
def test_a_key_gives_one_stream(seed: int, key: list[int | str]) -> None:
    first, second = generator(seed, *key), generator(seed, *key)
    assert np.array_equal(first.random(5), second.random(5))
    assert 0 <= torch_seed(seed, *key) == torch_seed(seed, *key) < 2**63


@given(st.integers(0, 5), keys, st.integers(0, 5), keys)
def test_other_keys_give_other_streams(
    seed: int, key: list[int | str], other_seed: int, other: list[int | str]
) -> None:
    same = (seed, key) == (other_seed, other)
    assert np.array_equal(generator(seed, *key).random(4), generator(other_seed, *other).random(4)) == same
    assert (torch_seed(seed, *key) == torch_seed(other_seed, *other)) == same


def test_numbers_as_words_are_other_keys() -> None:
    assert generator(1, 1).random() != generator(1, "1").random()
    assert generator(1, np.int64(4)).random() == generator(1, 4).random()


def test_neighbouring_keys_are_unrelated() -> None:
    draws = np.array([[generator(1, "train", 0, 0, i, s).random() for s in range(8)] for i in range(500)])
    correlation = np.corrcoef(draws.T) - np.eye(8)
    assert np.abs(correlation).max() < 0.2  # 4.4 standard deviations of 1/sqrt(500)
    assert abs(draws.mean() - 0.5) < 0.02
