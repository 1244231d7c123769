"""prepare: what the four stages give one after the other, from fewer readings of the files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segplug.errors import DataError
from segplug.model import Image
from segplug.runtime.project import Project, open_project
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.prepare import prepare
from segplug.stages.preprocess import preprocess
from segplug.stages.verify import verify, verify_and_fingerprint
from segplug.testing.phantoms import Phantom, write_phantom_dataset
from segplug_builtin.formats import itk

DATASET = "Dataset301_Prepared"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_phantom_dataset(tmp_path / "raw" / DATASET, Phantom(shape=(16, 24, 20), spacing_spread=1.2), cases=5)
    return tmp_path / "raw"


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was read."""
    counted: Counter[str] = Counter()
    read: Callable[[Path], Image] = itk._read

    def counting(path: Path) -> Image:
        counted[path.name] += 1
        return read(path)

    monkeypatch.setattr(itk, "_read", counting)
    return counted


def content(folder: Path) -> dict[str, Any]:
    """Every JSON file of a data set, but for what tells when and where it was made."""
    files = {file.name: json.loads(file.read_text()) for file in sorted(folder.glob("[!.]*.json"))}
    return files | {"folders": sorted(str(p.relative_to(folder)) for p in folder.rglob("*.case"))}


def stored(project: Project, names: Sequence[str]) -> list[tuple[Any, Any]]:
    from segplug_builtin.stores import Blosc2Store

    found = []
    for folder in sorted((project.workspace.preprocessed_folder(DATASET)).glob("nnUNetPlans_*")):
        store = Blosc2Store(folder, (16, 24, 20))
        for name in names:
            case = store.open(name)
            found.append(case.read((0, 0, 0), case.shape))
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_it_gives_what_the_four_stages_give(raw: Path, tmp_path: Path, workers: int) -> None:
    with open_project(raw, tmp_path / "one", workers=workers) as project:
        done = prepare(project, DATASET)
        assert done.preprocessed.made
    with open_project(raw, tmp_path / "four", workers=0) as four:
        assert verify(four, DATASET).ok
        assert fingerprint(four, DATASET) == done.fingerprint
        assert plan(four, DATASET) == done.plan
        preprocess(four, DATASET)
    assert content(tmp_path / "one" / DATASET) == content(tmp_path / "four" / DATASET)
    names = [f"phantom_{n:03d}" for n in range(5)]
    for ours, theirs in zip(stored(project, names), stored(four, names), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_each_file_is_read_once_for_verification_and_fingerprint(
    raw: Path, tmp_path: Path, readings: Counter[str]
) -> None:
    with open_project(raw, tmp_path / "out", workers=0) as project:
        verification, made = verify_and_fingerprint(project, DATASET)
        assert verification.ok
        assert made == fingerprint(project, DATASET)
    first = "phantom_000_0000.nii.gz"  # which reader it is for was found by reading it
    assert readings.pop(first) <= 2
    assert set(readings.values()) == {1}


def test_what_is_current_is_kept(raw: Path, tmp_path: Path, readings: Counter[str]) -> None:
    with open_project(raw, tmp_path / "out", workers=0) as project:
        made = prepare(project, DATASET)
        readings.clear()
        again = prepare(project, DATASET)
        assert (again.fingerprint, again.plan) == (made.fingerprint, made.plan)
        assert not any(again.preprocessed.made.values())
        assert not readings
        file = project.workspace.fingerprint_file(DATASET)
        file.write_text("{")
        assert prepare(project, DATASET).fingerprint == made.fingerprint


def test_plans_that_are_there_may_stay_as_they_are(raw: Path, tmp_path: Path) -> None:
    with open_project(raw, tmp_path / "out", workers=0) as project:
        first = prepare(project, 301, planner=None, configurations=["3d_fullres"])
        file = project.workspace.plans_file(DATASET, first.plan.plans_name)
        content = json.loads(file.read_text())
        content["configurations"]["3d_fullres"]["batch_size"] = 7
        file.write_text(json.dumps(content))
        again = prepare(project, 301, planner=None, configurations=["3d_fullres"])
        assert again.plan.configurations["3d_fullres"].batch_size == 7
        assert json.loads(file.read_text()) == content
        anew = prepare(project, 301, configurations=["3d_fullres"])
        assert anew.plan.configurations["3d_fullres"].batch_size != 7


def test_bad_data_stop_it_before_anything_is_written(raw: Path, tmp_path: Path) -> None:
    for name in ("phantom_001_0000", "phantom_003_0000"):
        file = raw / DATASET / "imagesTr" / f"{name}.nii.gz"
        file.write_bytes(file.read_bytes()[:-30])
    with open_project(raw, tmp_path / "out", workers=0) as project:
        with pytest.raises(DataError, match=r"(?s)phantom_001.*phantom_003"):
            prepare(project, DATASET)
        assert not project.workspace.fingerprint_file(DATASET).exists()
