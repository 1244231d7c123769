from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import pytest

from segplug.errors import SegplugError
from segplug.runtime.model_archive import ModelArchive


@pytest.mark.parametrize("seed", range(2))
def test_whatever_bytes_are_changed_it_is_an_error_in_words_or_none(tmp_path: Path, seed: int) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        for name in ("plans.json", "dataset.json"):
            made.writestr(f"Dataset001_A/T__P__2d/{name}", '{"a": 1}' * 30)
    draw, refused = random.Random(seed), 0
    for _ in range(300):
        damaged = bytearray(content.getvalue())
        for _ in range(draw.choice((1, 2, 4))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        (tmp_path / "m.zip").write_bytes(damaged)
        try:
            with ModelArchive(tmp_path / "m.zip", 10**9) as archive:
                for name in archive.names:
                    archive.read(name)
        except SegplugError:
            refused += 1
    assert refused > 100
