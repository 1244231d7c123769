"""Random numbers as a pure function of what they are for.

Nothing in segplug draws from a global generator. Every draw names the seed of the run and the key of the thing drawn
(fold, epoch, iteration, sample, ...), so that no order of work, number of workers or interruption changes it.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np


def generator(seed: int, *key: int | str) -> np.random.Generator:
    """Make the generator that belongs to a key.

    It is counter based (Philox) and keyed by a hash, so that neighbouring keys give unrelated streams and the same
    key gives the same stream on every machine.

    Args:
        seed: of the whole run.
        key: what the numbers are for, such as ``("train", fold, epoch, iteration, sample)``; 1 and "1" differ.
    """
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, key)[:16], "little")))


def torch_seed(seed: int, *key: int | str) -> int:
    """A seed for torch (0 to 2^63 - 1) that belongs to a key; unrelated to `generator`'s stream of that key."""
    return int.from_bytes(_digest(seed, key)[16:24], "little") >> 1


def _digest(seed: int, key: tuple[int | str, ...]) -> bytes:
    parts: list[int | str] = [part if isinstance(part, str) else int(part) for part in (seed, *key)]
    return hashlib.sha256(json.dumps(parts).encode()).digest()
