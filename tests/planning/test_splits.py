"""Folds: scikit-learn's and nnU-Net's own, from a file, by hand, past the file, of very few cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplug.errors import DataError, UsageError
from segplug.model import Split
from segplug.runtime.project import Project
from segplug.runtime.splits import adopt_splits, find_split, random_split, read_splits, write_splits
from segplug_builtin.splitters import kfold

NAME = "Dataset001_X"


def names(count: int) -> list[str]:
    return [f"case_{number:03d}" for number in range(count)]


def numbers(cases: tuple[str, ...]) -> list[int]:
    return [int(case.removeprefix("case_")) for case in cases]


@pytest.mark.parametrize(
    ("count", "validated"),
    [  # KFold(5, shuffle=True, random_state=12345) of scikit-learn
        (5, [[0], [4], [3], [1], [2]]),
        (11, [[0, 3, 7], [6, 10], [8, 9], [1, 4], [2, 5]]),
    ],
)
def test_folds_are_scikit_learns(count: int, validated: list[list[int]]) -> None:
    folds = kfold(list(reversed(names(count))))
    assert [numbers(fold.val) for fold in folds] == validated
    for fold in folds:
        assert list(fold.train) == [name for name in names(count) if name not in fold.val]


@given(count=st.integers(2, 60), folds=st.integers(2, 9))
def test_each_case_is_validated_once(count: int, folds: int) -> None:
    made = kfold(names(count), folds=folds)
    assert len(made) == min(folds, count)
    assert sorted(case for fold in made for case in fold.val) == names(count)
    for fold in made:
        assert sorted((*fold.train, *fold.val)) == names(count)
        assert fold.train


def test_a_single_case_is_trained_on_and_validated() -> None:
    assert kfold(["only"]) == [Split(("only",), ("only",))]


@pytest.mark.parametrize(("count", "fold", "trained"), [(10, 7, [4, 6, 0, 9, 1, 7, 2, 8]), (3, 5, [0, 1])])
def test_random_splits_are_nnunets(count: int, fold: int, trained: list[int]) -> None:
    split = random_split(names(count), fold)
    assert numbers(split.train) == trained
    assert numbers(split.val) == sorted(set(range(count)) - set(trained))


def test_one_case_cannot_be_split_at_random() -> None:
    with pytest.raises(UsageError, match="cannot be split"):
        random_split(names(1), 5)


class TestFindSplit:
    def test_the_file_is_made_once_and_then_used(self, project: Project) -> None:
        made = find_split(project, NAME, names(11), 1)
        file = project.workspace.splits_file(NAME)
        assert json.loads(file.read_text())[1] == {"train": list(made.train), "val": list(made.val)}
        write_splits(file, [Split(("case_000",), ("case_001",))])
        assert find_split(project, NAME, names(11), 0) == Split(("case_000",), ("case_001",))

    def test_a_fold_past_the_file_is_random(self, project: Project) -> None:
        assert find_split(project, NAME, names(10), 7) == random_split(names(10), 7)

    def test_all_is_everything_twice_and_makes_no_file(self, project: Project) -> None:
        assert find_split(project, NAME, names(3), "all") == Split(tuple(names(3)), tuple(names(3)))
        assert not project.workspace.splits_file(NAME).exists()

    @pytest.mark.parametrize("fold", [-1, "al", 1.5])
    def test_other_folds_are_usage_errors(self, project: Project, fold: int | str) -> None:
        with pytest.raises(UsageError, match="expected a number from 0 on, or all"):
            find_split(project, NAME, names(3), fold)

    def test_without_cases_no_file_is_made(self, project: Project) -> None:
        with pytest.raises(DataError, match="segplug preprocess"):
            find_split(project, NAME, [], 0)
        assert not project.workspace.splits_file(NAME).exists()

    def test_unknown_cases_are_named(self, project: Project) -> None:
        write_splits(project.workspace.splits_file(NAME), [Split(("case_000", "case_009"), ("x",))])
        with pytest.raises(DataError, match=r"splits_final.json: fold 0 names 2 cases .*: case_009, x\."):
            find_split(project, NAME, names(3), 0)

    def test_training_on_validation_cases_is_warned_of(self, project: Project) -> None:
        write_splits(project.workspace.splits_file(NAME), [Split(("case_000", "case_001"), ("case_001",))])
        with pytest.warns(UserWarning, match="trains on 1 of its validation cases \\(case_001\\)"):
            find_split(project, NAME, names(3), 0)


@pytest.mark.parametrize(
    "content", ["{}", "[]", '[{"train": []}]', '[{"train": "a", "val": []}]', '[{"train": [1], "val": []}]']
)
def test_a_damaged_file_is_an_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "splits_final.json"
    file.write_text(content)
    with pytest.raises(DataError, match=r"splits_final\.json: expected \[\{"):
        read_splits(file)


class TestAdoption:
    @pytest.fixture
    def raw(self, tmp_path: Path) -> Path:
        write_splits(tmp_path / "raw" / "splits_final.json", [Split(("a", "b"), ("c",))])
        return tmp_path / "raw"

    def test_the_raw_data_sets_file_is_copied_as_it_is(self, raw: Path, tmp_path: Path) -> None:
        (raw / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"], "note": "mine"}]')
        adopt_splits(raw, tmp_path / "preprocessed" / "splits_final.json")
        assert (tmp_path / "preprocessed" / "splits_final.json").read_text() == (raw / "splits_final.json").read_text()

    def test_without_one_nothing_happens(self, tmp_path: Path) -> None:
        adopt_splits(tmp_path, tmp_path / "preprocessed" / "splits_final.json")
        assert not (tmp_path / "preprocessed").exists()

    def test_the_same_in_another_order_and_further_folds_are_fine(self, raw: Path, tmp_path: Path) -> None:
        file = tmp_path / "splits_final.json"
        write_splits(file, [Split(("b", "a"), ("c",)), Split(("c",), ("a",))])
        before = file.read_text()
        adopt_splits(raw, file)
        assert file.read_text() == before

    @pytest.mark.parametrize("there", [[Split(("a",), ("c",))], [Split(("a", "b"), ("d",))]])
    def test_other_folds_are_an_error(self, raw: Path, tmp_path: Path, there: list[Split]) -> None:
        write_splits(tmp_path / "splits_final.json", there)
        with pytest.raises(DataError, match="fold 0 is not that of"):
            adopt_splits(raw, tmp_path / "splits_final.json")
