"""When a finished result counts as current."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from segplug.errors import UsageError
from segplug.runtime.files import PARTIAL
from segplug.runtime.folder_lock import working_in
from segplug.runtime.manifest import made_from, staleness

SETTINGS = {"spacing": (1.0, 2.0), "order": 3}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.nii", tmp_path / "b.nii"]
    for path in paths:
        path.write_text(path.name)
    return paths


def test_staleness(files: list[Path], tmp_path: Path) -> None:
    manifest = json.loads(json.dumps(made_from(files, SETTINGS)))
    assert staleness(None, files, SETTINGS, hashing=True) == "new"
    assert staleness(manifest, files, SETTINGS, hashing=False) == ""
    assert staleness(manifest, files, {**SETTINGS, "order": 1}, hashing=True) == "other settings (order)"
    assert staleness(manifest, files[:1], SETTINGS, hashing=True) == "other files"
    assert staleness({}, files, SETTINGS, hashing=True) == "other settings (order, spacing)"
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in files:
        os.replace(path, moved / path.name)
    assert staleness(manifest, [moved / p.name for p in files], SETTINGS, hashing=False) == ""


def test_contents_decide_where_only_the_time_differs(files: list[Path]) -> None:
    manifest = made_from(files, SETTINGS)
    os.utime(files[0], ns=(0, 0))
    assert staleness(manifest, files, SETTINGS, hashing=False) == "a.nii has changed"
    assert staleness(manifest, files, SETTINGS, hashing=True) == ""
    files[0].write_text("A.nii")
    assert staleness(manifest, files, SETTINGS, hashing=True) == "a.nii has changed"


def test_one_run_per_folder(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with working_in(folder):
        (folder / f"{PARTIAL}left-by-a-killed-run").touch()
        (folder / "kept").touch()
        with pytest.raises(UsageError, match="another run is writing here"), working_in(folder):
            pass
    with working_in(folder):
        assert [p.name for p in folder.iterdir()] == ["kept"]
