"""Training cases set aside for testing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from segplug.cli.main import main
from segplug.errors import DataError, UsageError
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import load_dataset
from segplug.stages import split_dataset as stage
from segplug.stages.split_dataset import draw_test_cases, split_dataset, undo_split
from segplug.stages.verify import verify
from segplug.testing.phantoms import Phantom, write_phantom_dataset

TINY = Phantom(shape=(6, 10, 9), channels=("T1", "T2"))


@pytest.fixture
def dataset(raw: Path) -> Path:
    return write_phantom_dataset(raw / "Dataset001_Phantom", TINY, cases=10, test_cases=1)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def cases_in(folder: Path) -> set[str]:
    return {p.name.removesuffix(".nii.gz") for p in folder.iterdir()}


def test_cases_are_moved_and_moved_back(dataset: Path, project: Project) -> None:
    before = content(dataset)
    made = split_dataset(project, 1, 0.3)
    assert (len(made.training), len(made.test)) == (7, 3)
    assert cases_in(dataset / "labelsTs") == {*made.test, "phantom_010"}
    assert cases_in(dataset / "imagesTs") == {f"{c}_{i:04d}" for c in (*made.test, "phantom_010") for i in range(2)}
    assert set(load_dataset(dataset).cases) == set(made.training)
    assert json.loads((dataset / "dataset.json").read_text())["numTraining"] == 7
    assert verify(project, 1).findings == ()
    record = json.loads((dataset / "test_split.json").read_text())
    assert (record["cases"], record["state"], record["seed"]) == (list(made.test), "done", 12345)
    with pytest.raises(UsageError, match=r"is split already.*--undo"):
        split_dataset(project, 1, 0.3)
    undo_split(project, 1)
    after = content(dataset)
    assert {n: c for n, c in after.items() if n != "dataset.json"} == {
        n: c for n, c in before.items() if n != "dataset.json"
    }
    assert json.loads(after["dataset.json"]) == json.loads(before["dataset.json"])
    with pytest.raises(UsageError, match="nothing to undo"):
        undo_split(project, 1)


@pytest.mark.parametrize("steps", [0, 1, 4, 8])
def test_an_interrupted_split_is_finished_or_undone(
    dataset: Path, project: Project, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(content(dataset))
    left = [steps]

    def failing(source: Path, target: Path) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        os.replace(source, target)

    for finish in (True, False):
        left[0] = steps
        monkeypatch.setattr(stage.os, "rename", failing)
        with pytest.raises(KeyboardInterrupt):
            split_dataset(project, 1, 3)
        monkeypatch.undo()
        with pytest.raises(UsageError, match="in between"):
            split_dataset(project, 1, 4)
        if finish:
            made = split_dataset(project, 1, 3)
            assert set(load_dataset(dataset).cases) == set(made.training)
            assert len(made.test) == 3
        undo_split(project, 1)
        assert set(content(dataset)) == before
        assert json.loads((dataset / "dataset.json").read_text())["numTraining"] == 10


def test_a_new_data_set(dataset: Path, project: Project, raw: Path) -> None:
    (dataset / "splits_final.json").write_text(
        json.dumps([{"train": [f"phantom_{i:03d}" for i in range(8)], "val": ["phantom_008", "phantom_009"]}])
    )
    before = content(dataset)
    made = split_dataset(project, 1, 2, to=2, link=True)
    assert made.folder == raw / "Dataset002_Phantom"
    assert content(dataset) == before
    assert cases_in(made.folder / "labelsTs") == set(made.test)
    assert verify(project, 2).findings == ()
    new = f"labelsTs/{made.test[0]}.nii.gz"
    assert (made.folder / new).samefile(dataset / new.replace("Ts", "Tr"))
    folds = json.loads((made.folder / "splits_final.json").read_text())
    assert {*folds[0]["train"], *folds[0]["val"]} == set(made.training)
    with pytest.raises(UsageError, match="Remove it instead"):
        undo_split(project, 2)
    with pytest.raises(UsageError, match="exists already"):
        split_dataset(project, 1, 2, to=2)


def test_files_listed_one_by_one(dataset: Path, project: Project) -> None:
    raw = json.loads((dataset / "dataset.json").read_text())
    cases = {
        f"c{i}": {
            "images": [f"imagesTr/phantom_{i:03d}_{c:04d}.nii.gz" for c in range(2)],
            "label": f"labelsTr/phantom_{i:03d}.nii.gz",
        }
        for i in range(10)
    }
    (dataset / "dataset.json").write_text(json.dumps({**raw, "dataset": cases}))
    with pytest.raises(UsageError, match="lists its files one by one"):
        split_dataset(project, 1, 0.2)
    made = split_dataset(project, 1, 0.2, to=2)
    assert verify(project, 2).findings == ()
    assert cases_in(made.folder / "labelsTs") == set(made.test) <= set(cases)


def test_stacks_keep_their_spacing(project: Project, raw: Path) -> None:
    phantom = Phantom(shape=(6, 10, 9), file_ending=".tif")
    folder = write_phantom_dataset(raw / "Dataset003_Stacks", phantom, cases=4)
    before = set(content(folder))
    made = split_dataset(project, 3, 1)
    for part in ("imagesTs", "labelsTs"):
        assert (folder / part / f"{made.test[0]}.json").is_file()
    undo_split(project, 3)
    assert set(content(folder)) == before
    made = split_dataset(project, 3, 1, to=4)
    assert (made.folder / "labelsTs" / f"{made.test[0]}.json").is_file()


def test_groups_stay_together(dataset: Path, project: Project, tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"phantom_{i:03d},p{i // 3}\n" for i in range(10)))
    made = split_dataset(project, 1, 0.3, group=f"{table}:patient")
    assert len(made.test) == 3
    assert len({made.groups[c] for c in made.test}) == 1
    undo_split(project, 1)
    with pytest.raises(DataError, match=r"found nothing of it in the names of 10 cases"):
        split_dataset(project, 1, 0.3, group=r"patient\d")


def test_nothing_that_was_trained_on_becomes_a_test_case(dataset: Path, project: Project, tmp_path: Path) -> None:
    before = content(dataset)
    known = tmp_path / "preprocessed" / "Dataset001_Phantom" / "splits_final.json"
    known.parent.mkdir(parents=True)
    known.write_text("[]")
    with pytest.raises(UsageError, match=f"{known} knows the cases"):
        split_dataset(project, 1, 0.2)
    known.unlink()
    (tmp_path / "results" / "Dataset001_Phantom").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"results/Dataset001_Phantom knows the cases.*--to"):
        split_dataset(project, 1, 0.2)
    assert content(dataset) == before


def test_names_that_are_taken(dataset: Path, project: Project) -> None:
    case = split_dataset(project, 1, 1, to=9).test[0]
    (dataset / "imagesTs" / f"{case}_0000.nii.gz").write_bytes(b"other")
    with pytest.raises(DataError, match=rf"found imagesTs/{case}_0000.nii.gz already"):
        split_dataset(project, 1, 1)


def test_files_that_went_missing_in_between(dataset: Path, project: Project) -> None:
    made = split_dataset(project, 1, 1)
    (dataset / f"labelsTs/{made.test[0]}.nii.gz").unlink()
    with pytest.raises(DataError, match="found a file at neither place"):
        undo_split(project, 1)


@pytest.mark.parametrize("test", [0.0, -1.0, 1.5, 10.0, 0.01, 0.99, float("nan"), float("inf")])
def test_shares_that_leave_nothing(test: float) -> None:
    with pytest.raises(UsageError, match="--test"):
        draw_test_cases([f"c{i}" for i in range(10)], test, seed=0, groups={})


@given(
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=12),
    share=st.floats(0.1, 0.9),
    seed=st.integers(0, 2**32),
)
def test_drawing(sizes: list[int], share: float, seed: int) -> None:
    groups = {f"g{g}_{i}": f"g{g}" for g, size in enumerate(sizes) for i in range(size)}
    try:
        drawn = draw_test_cases(list(groups), share, seed=seed, groups=groups)
    except UsageError:
        assume(False)
        return
    assert drawn == draw_test_cases(sorted(groups, reverse=True), share, seed=seed, groups=groups)
    assert not {groups[c] for c in drawn} & {groups[c] for c in set(groups) - drawn}
    assert abs(len(drawn) - share * len(groups)) <= max(sizes) / 2 + 0.5 + (max(sizes) - 1) / 2


def test_on_the_command_line(dataset: Path, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[Any, str, str]:
        try:
            main(["--raw", str(raw), "dataset", "split", *arguments])
            code: Any = 0
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    code, out, _ = run("1", "--test", "0.2", "--seed", "4", "--group", r"\d+")
    assert code == 0
    assert out.splitlines()[0] == "Dataset001_Phantom: 8 training cases, 2 test cases of 2 groups"
    assert run("1", "--test", "0.2")[0] == 2
    assert run("1")[0] == 2
    assert run("1", "--undo")[1].startswith("Dataset001_Phantom: 10 training cases, 0 test cases")
