"""`--max-memory` while data is prepared: the same results within the number, or a refusal before the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from segplug.errors import DataError, UsageError
from segplug.model import Image
from segplug.protocols import ImageSize
from segplug.runtime import limited_work, measuring_memory, memory_limit
from segplug.runtime.cropping import crop_to_nonzero
from segplug.runtime.limited_work import WORKER, shares
from segplug.runtime.preparation_memory import CaseSize, to_inspect, to_measure, to_merge
from segplug.runtime.preprocessing import compacted
from segplug.runtime.process_tree import UsageMeter
from segplug.runtime.project import Project, open_project
from segplug.stages.fingerprint import fingerprint
from segplug.stages.prepare import prepare
from segplug.stages.preprocess import preprocess
from segplug.stages.verify import verify
from segplug.testing.phantoms import Phantom, write_phantom_dataset
from segplug_builtin import readers

DATASET = "Dataset302_Limited"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("limited") / "raw"
    write_phantom_dataset(folder / DATASET, Phantom(shape=(16, 24, 20), spacing_spread=1.2), cases=3)
    return folder


def content(folder: Path) -> Mapping[str, Any]:
    """JSON files and preprocessed cases."""
    files: dict[str, Any] = {f.name: json.loads(f.read_text()) for f in sorted(folder.glob("[!.]*.json"))}
    return files | {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*.case"))}


@given(
    needs=st.dictionaries(st.text(max_size=3), st.integers(0, 10**10), max_size=8),
    left=st.integers(0, 2 * 10**10),
    workers=st.integers(0, 9),
)
def test_cases_at_once_fit_together(needs: dict[str, int], left: int, workers: int) -> None:
    found = shares(needs, left, workers)
    assert sorted(name for names in found.values() for name in names) == sorted(needs)
    assert list(found) == sorted(found, reverse=True)
    for count, names in found.items():
        assert count <= workers
        largest = max(needs[name] for name in names)
        assert count * (WORKER + largest) <= left or count == 0
        assert all((count + 1) * (WORKER + needs[name]) > left for name in names) or count == workers


def test_the_same_results_here_as_in_workers(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limit, "used_memory", lambda: 0)
    for name, gigabytes in (("free", None), ("workers", 2.0), ("here", 0.22)):
        with open_project(raw, tmp_path / name, workers=2, max_memory_gb=gigabytes) as project:
            done = prepare(project, DATASET)
            assert len(done.preprocessed.made["nnUNetPlans_3d_fullres"]) == 3
    for name in ("workers", "here"):
        assert content(tmp_path / name / DATASET) == content(tmp_path / "free" / DATASET)


def test_workers_are_as_many_as_there_is_room_for(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    make = limited_work.limited_executor

    def counting(project: Project, count: int) -> Any:
        started.append(count)
        return make(project, 0)

    monkeypatch.setattr(memory_limit, "used_memory", lambda: 0)
    monkeypatch.setattr("segplug.runtime.case_work.limited_executor", counting)
    for gigabytes, count in ((0.3, 1), (0.6, 2), (100, 4)):
        started.clear()
        with open_project(raw, tmp_path, workers=4, max_memory_gb=gigabytes) as project:
            verify(project, DATASET)
        assert started == [count]


@pytest.mark.parametrize("work", [verify, fingerprint, prepare])
def test_what_does_not_fit_is_refused_before_the_work(
    work: Callable[..., Any], raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_limit, "used_memory", lambda: 10**8)
    monkeypatch.setattr(limited_work, "LIBRARIES", {"not loaded": 150_000_000})
    with open_project(raw, tmp_path, workers=2, max_memory_gb=0.15) as project:
        with pytest.raises(DataError, match=r"case phantom_00\d: .* leaves 0.05; give at least 0.3. Nothing was done"):
            work(project, DATASET)
        assert "executor" not in vars(project)
    assert not (tmp_path / DATASET / "dataset_fingerprint.json").exists()
    with open_project(raw, tmp_path, workers=2, max_memory_gb=0.3) as project:
        work(project, DATASET)


def test_a_case_too_large_to_be_preprocessed(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its voxels are a tenth as large as before: a thousand times as many."""
    with open_project(raw, tmp_path, workers=0) as project:
        plan = prepare(project, DATASET).plan
        file = tmp_path / DATASET / "nnUNetPlans.json"
        text = json.loads(file.read_text())
        text["configurations"]["3d_fullres"]["spacing"] = [s / 10 for s in plan.configurations["3d_fullres"].spacing]
        file.write_text(json.dumps(text))
    monkeypatch.setattr(memory_limit, "used_memory", lambda: 0)
    monkeypatch.setattr("segplug.runtime.case_preprocessing.read_image", lambda *_: pytest.fail("an image was read"))
    with (
        open_project(raw, tmp_path, workers=0, max_memory_gb=0.15) as project,
        pytest.raises(DataError, match=r"preprocessing it .*--max-memory 0.15 leaves 0.15; give at least \d"),
    ):
        preprocess(project, DATASET, configurations=["3d_fullres"])


def test_only_this_machine_and_readers_that_tell(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limit, "used_memory", lambda: 0)
    with open_project(raw, tmp_path, workers=0, max_memory_gb=4) as project:
        project._executor_name = "elsewhere"
        with pytest.raises(UsageError, match="local executor"):
            verify(project, DATASET)
    monkeypatch.setattr(readers, "read_simpleitk", readers.read_simpleitk.read)
    with (
        open_project(raw, tmp_path, workers=0, max_memory_gb=4) as project,
        pytest.raises(UsageError, match=r"reader 'SimpleITKIO' does not tell .*SizedReader"),
    ):
        verify(project, DATASET)


def test_the_foreground_is_counted_where_it_decides(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    count = measuring_memory.count_foreground

    def counting(case: Any, reader: Any) -> int:
        counted.append(case.name)
        return count(case, reader)

    monkeypatch.setattr(memory_limit, "used_memory", lambda: 0)
    monkeypatch.setattr(measuring_memory, "count_foreground", counting)
    with open_project(raw, tmp_path / "much", workers=0, max_memory_gb=2) as project:
        free = fingerprint(project, DATASET)
    assert not counted
    monkeypatch.setattr(measuring_memory, "shares", lambda needs, left, workers: {0: list(needs)})
    with open_project(raw, tmp_path / "little", workers=1, max_memory_gb=0.3) as project:
        project.workers = 0
        monkeypatch.setattr(measuring_memory, "max", lambda *_: 1, raising=False)
        assert fingerprint(project, DATASET) == free
    assert counted == ["phantom_000", "phantom_001", "phantom_002"]


def test_less_foreground_takes_less() -> None:
    image = ImageSize((2, 10, 100, 100), (1.0, 1.0, 1.0), 10**6)
    size = CaseSize(image, replace(image, shape=(1, 10, 100, 100), distinct=256))
    some = replace(size, counted=1000)
    assert to_measure(some, 10**6) < to_measure(size, 10**6) <= to_inspect(size, 10**6)
    assert to_merge([some, some], 10**6) == 16 * 2 * 2 * 1000
    assert to_merge([], 10**6) == 0
    few = replace(size, image=replace(image, distinct=256))
    assert to_merge([few], 10**6) == 16 * 2 * 256


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 99),
)
def test_a_part_moves_to_the_front_of_its_array(shape: tuple[int, ...], seed: int) -> None:
    random = np.random.default_rng(seed)
    whole = random.normal(size=shape).astype(np.float32)
    box = tuple(slice(a, random.integers(a + 1, n + 1)) for n in shape[1:] for a in [random.integers(n)])
    part: NDArray[np.float32] = whole[(slice(None), *box)]
    expected = part.copy()
    moved = compacted(part)
    assert moved is not None
    assert np.shares_memory(moved, whole)
    np.testing.assert_array_equal(moved, expected)


def test_axes_that_change_places_need_a_copy() -> None:
    assert compacted(np.zeros((1, 3, 4, 5), np.float32).transpose(0, 2, 1, 3)) is None
    fixed = np.zeros((1, 3, 4, 5), np.float32)
    fixed.flags.writeable = False
    assert compacted(fixed) is None


@given(seed=st.integers(0, 99))
def test_labels_that_are_written_over_become_the_same(seed: int) -> None:
    random = np.random.default_rng(seed)
    data = random.normal(size=(1, 5, 6, 7)).astype(np.float32) * (random.random((1, 5, 6, 7)) < 0.3)
    labels = random.integers(0, 3, (5, 6, 7)).astype(np.int16)
    kept = labels.copy()
    expected = crop_to_nonzero(data, labels)
    np.testing.assert_array_equal(labels, kept)
    np.testing.assert_array_equal(crop_to_nonzero(data, labels, consumed=True)[1], expected[1])


def test_several_files_are_inspected_in_one_array(raw: Path, tmp_path: Path) -> None:
    from segplug.runtime.case_inspection import inspect_case
    from segplug.runtime.raw_dataset import load_dataset

    write_phantom_dataset(tmp_path / DATASET, Phantom(shape=(8, 9, 10), channels=("a", "b", "c")), cases=1)
    dataset = load_dataset(tmp_path / DATASET)
    (case,) = dataset.cases.values()
    found = inspect_case(case, readers.read_simpleitk, dataset.description)
    assert isinstance(found.image, Image)
    assert not found.findings
    np.testing.assert_array_equal(found.image.array, readers.read_simpleitk(case.images).array)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_process_tree_stays_below(tmp_path: Path) -> None:
    """Six images of 7 million voxels at once take more than 1 GB."""
    phantom = Phantom(shape=(112, 250, 250), spacing_spread=1.3)
    write_phantom_dataset(tmp_path / "raw" / DATASET, phantom, cases=6)

    def prepared(name: str, *options: str) -> float:
        program = "from segplug.cli.main import main; main()"
        roots = ("--raw", str(tmp_path / "raw"), "--preprocessed", str(tmp_path / name))
        command = [sys.executable, "-c", program, *roots, "prepare", DATASET, "--workers", "6", *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # in this process as in the workers
        process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        with UsageMeter(process.pid) as meter:
            _, errors = process.communicate()
        assert process.returncode == 0, errors
        return meter.usage.peak_memory / 1e9

    most, peak = prepared("free"), prepared("limited", "--max-memory", "0.7")
    assert peak < 0.7 < most
    assert content(tmp_path / "limited" / DATASET) == content(tmp_path / "free" / DATASET)
