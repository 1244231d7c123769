"""Paths of a data set, and how a data set is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from segplug.errors import UsageError
from segplug.runtime.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two raw data sets, and one that is there preprocessed only."""
    for name in ("raw/Dataset004_Hippocampus", "raw/Dataset027_ACDC", "pre/Dataset005_Prostate", "raw/notes"):
        (tmp_path / name).mkdir(parents=True)
    return Workspace(tmp_path / "raw", tmp_path / "pre", tmp_path / "res")


@pytest.mark.parametrize("dataset", ["4", 4, "004", "Dataset004_Hippocampus"])
def test_a_data_set_by_id_or_name(workspace: Workspace, dataset: str | int) -> None:
    assert workspace.dataset_name(dataset) == "Dataset004_Hippocampus"
    assert workspace.raw is not None
    assert workspace.raw_folder(dataset) == workspace.raw / "Dataset004_Hippocampus"


def test_a_data_set_by_path(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "Dataset009_X"
    assert workspace.raw_folder(str(folder)) == folder
    assert workspace.dataset_name(folder) == "Dataset009_X"


def test_data_sets_of_all_roots(workspace: Workspace) -> None:
    assert workspace.datasets() == ["Dataset004_Hippocampus", "Dataset005_Prostate", "Dataset027_ACDC"]


def test_an_unknown_data_set_lists_what_there_is(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match=r"Did you mean Dataset027_ACDC\? There are: Dataset004_Hippocampus"):
        workspace.dataset_name("Dataset027_ACCD")
    with pytest.raises(UsageError, match="no data set '7'"):
        workspace.dataset_name(7)
    with pytest.raises(UsageError, match="none is set"):
        Workspace().dataset_name(7)


def test_two_of_one_id_must_be_named_in_full(workspace: Workspace) -> None:
    assert workspace.raw is not None
    (workspace.raw / "Dataset004_Other").mkdir()
    with pytest.raises(UsageError, match="several have this id: Dataset004_Hippocampus, Dataset004_Other"):
        workspace.dataset_name("4")
    assert workspace.dataset_name("Dataset004_Other") == "Dataset004_Other"


def test_the_layout_is_nnunets(workspace: Workspace, tmp_path: Path) -> None:
    name, pre, res = "Dataset004_Hippocampus", tmp_path / "pre" / "Dataset004_Hippocampus", tmp_path / "res"
    assert workspace.fingerprint_file(name) == pre / "dataset_fingerprint.json"
    assert workspace.plans_file(name, "nnUNetPlans") == pre / "nnUNetPlans.json"
    assert workspace.splits_file(name) == pre / "splits_final.json"
    assert workspace.reference_folder(name) == pre / "gt_segmentations"
    assert workspace.store_folder(name, "nnUNetPlans_2d") == pre / "nnUNetPlans_2d"
    model = res / name / "nnUNetTrainer__nnUNetPlans__2d"
    assert workspace.model_folder(name, "nnUNetTrainer", "nnUNetPlans", "2d") == model
    assert workspace.fold_folder(name, "nnUNetTrainer", "nnUNetPlans", "2d", "all") == model / "fold_all"


def test_a_root_that_is_not_set_is_an_error_that_says_how(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--results DIR.*SEGPLUG_RESULTS or nnUNet_results"):
        Workspace(raw=tmp_path).model_folder("Dataset004_X", "T", "P", "2d")
