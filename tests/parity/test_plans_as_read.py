"""Splits, moved plans, plans edited by hand and old plans mean the same to both programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_plans import broken_plans, edited_plans

from segplug.errors import DataError
from segplug.kernel import Kernel
from segplug.model import Configuration, Plan
from segplug.runtime.fingerprint_codec import encode_channels
from segplug.runtime.plan_codec import decode_plan
from segplug.runtime.project import open_project
from segplug.runtime.splits import find_split, read_splits
from segplug.stages import fingerprint as fingerprint_module
from segplug.stages.fingerprint import fingerprint
from segplug.stages.move_plans import move_plans
from segplug.stages.plan import plan
from segplug.testing import KINDS, Phantom, write_phantom_dataset

pytestmark = pytest.mark.parity

SOURCE, TARGET, STACKS = "Dataset601_Source", "Dataset602_Target", "Dataset603_Stacks"
COUNTS = (5, 6, 9, 13, 40, 101)
TOO_FEW = (1, 2, 4)
FOLDS = [*range(8), "all"]
MOVES = [
    (TARGET, "nnUNetPlans", None),
    (TARGET, "nnUNetPlans", "Moved"),
    (TARGET, "nnUNetResEncUNetMPlans", "Moved2"),
    (STACKS, "nnUNetPlans", "Moved"),
]
Parity = Callable[..., None]


def cases(count: int) -> list[str]:
    """Names whose order is not that of their numbers, unsorted as a folder lists them."""
    names = [f"{'case' if number % 3 else 'Case'}_{number * 7}" for number in range(count)]
    return np.random.RandomState(count).permutation(names).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT data set with plans that have a cascade, and one in another format to move them to."""
    made = tmp_path_factory.mktemp("plans")
    KINDS["CT with cascade"].write(made / "raw" / SOURCE)
    for target, ending in ((TARGET, ".nrrd"), (STACKS, ".tif")):
        look = Phantom((9, 20, 18), channels=("CT",), file_ending=ending)
        write_phantom_dataset(made / "raw" / target, look, cases=2)
    with pytest.MonkeyPatch.context() as patch, open_project(made / "raw", made / "pre", workers=0) as project:
        patch.setattr(fingerprint_module, "TOTAL_DRAWS", 1e4)
        fingerprint(project, SOURCE)
        for planner in ("default", "resenc_m"):
            plan(project, SOURCE, planner=planner, memory_gb=0.05)
    return made


@pytest.fixture(scope="module")
def base(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "pre" / SOURCE / "nnUNetPlans.json").read_text())
    assert "3d_cascade_fullres" in found["configurations"]
    return {key: value for key, value in found.items() if key != "segplug"}


@pytest.fixture(scope="module")
def answers(folder: Path, base: dict[str, Any], run_peer: Callable[..., Any]) -> dict[str, Any]:
    """What nnunetv2 makes of everything here, by what it is."""
    edited = [*edited_plans(base).values(), *(plans for plans, _ in broken_plans(base).values())]
    asked = {
        "splits": [{"cases": cases(count), "folds": FOLDS} for count in (*COUNTS, *TOO_FEW)],
        "moves": [{"source": SOURCE, "target": name, "from": old, "to": new} for name, old, new in MOVES],
        "plans": edited,
    }
    # nnunetv2 reads and writes copies: plans that it moves must not be there when ours are
    theirs = folder / "theirs"
    for target in (TARGET, STACKS):
        (theirs / target).mkdir(parents=True)
    (theirs / SOURCE).symlink_to(folder / "pre" / SOURCE)
    found: dict[str, Any] = run_peer("peer_plans_as_read.py", asked, raw=folder / "raw", preprocessed=theirs)
    return found


@pytest.mark.parametrize("number", range(len(COUNTS)))
def test_splits(number: int, answers: dict[str, Any], parity: Parity, tmp_path: Path) -> None:
    theirs, names = answers["splits"][number], cases(COUNTS[number])
    with open_project(None, tmp_path, workers=0) as project:
        ours = [find_split(project, SOURCE, names, fold) for fold in FOLDS]
        file = json.loads(project.workspace.splits_file(SOURCE).read_text())
    parity("splits_final.json: folds that differ", len(file), int(file != theirs["file"]), 0, section="Planning")
    differing = sum(
        [list(split.train), list(split.val)] != expected
        for split, fold, expected in zip(ours, FOLDS, theirs["folds"], strict=True)
        if fold != "all"
    )
    both = [sorted(theirs["folds"][-1][0]), sorted(theirs["folds"][-1][1])]
    differing += [list(ours[-1].train), list(ours[-1].val)] != both
    what = "cases of folds 0 to 4, of random folds past the file, and of fold all: folds that differ"
    parity(what, len(FOLDS), differing, 0, section="Planning")


@pytest.mark.filterwarnings("ignore:.*trains on 1 of its validation cases")  # a single case
@pytest.mark.parametrize("number", range(len(TOO_FEW)))
def test_too_few_cases_to_split(number: int, answers: dict[str, Any], parity: Parity, tmp_path: Path) -> None:
    theirs, names = answers["splits"][len(COUNTS) + number], cases(TOO_FEW[number])
    assert "Cannot have number of splits n_splits=5 greater than the number of samples" in theirs["error"]
    with open_project(None, tmp_path, workers=0) as project:
        find_split(project, SOURCE, names, 0)
        found = read_splits(project.workspace.splits_file(SOURCE))
    assert sorted(name for split in found for name in split.val) == sorted(names)
    unused = sum(not split.train or not split.val for split in found)
    what = "splits of fewer than five cases: nnunetv2 fails, segplug validates each case once; folds without cases"
    parity(what, 1, unused, 0, section="Planning")


@pytest.mark.parametrize("number", range(len(MOVES)))
def test_moved_plans(
    number: int, answers: dict[str, Any], no_differences: Parity, folder: Path, tmp_path: Path
) -> None:
    from compare_plans import differences

    (tmp_path / SOURCE).symlink_to(folder / "pre" / SOURCE)
    (target, old, new), theirs = MOVES[number], answers["moves"][number]
    with open_project(folder / "raw", tmp_path, workers=0) as project:
        move_plans(project, SOURCE, target, from_plans=old, plans_name=new)
        ours = json.loads(project.workspace.plans_file(target, new or old).read_text())
    for plans in (ours, theirs):
        plans.pop("segplug")
    found = list(differences(ours, theirs))
    if target == STACKS:
        # nnunetv2 takes the first reader that opens the file, and not the one that it plans such data sets with:
        # SimpleITK's does not read the spacing that stands beside a stack
        assert found == ['/image_reader_writer: segplug "Tiff3DIO", nnunetv2 "SimpleITKIO"']
        return
    no_differences("plans moved to another data set: entries that differ", 1, found)


def test_plans_edited_by_hand_and_old_plans(
    answers: dict[str, Any], base: dict[str, Any], no_differences: Parity
) -> None:
    from compare_plans import differences

    for number, (what, plans) in enumerate(edited_plans(base).items()):
        theirs = answers["plans"][number]
        made = decode_plan(plans, Path("plans.json"))
        assert list(theirs) == list(made.configurations)
        row = "old plans (UNet_class_name)" if what.startswith("old") else "plans edited by hand (inherits_from)"
        for name, configuration in made.configurations.items():
            expected, ours = theirs[name], as_told(made, configuration)
            assert "error" not in expected, (what, name, expected)
            for side in (ours, expected):
                side["weights"] = list(side["weights"].items())
            found = differences(json.loads(json.dumps(ours)), expected, f"{what}, {name}: ")
            no_differences(f"{row}: settings, weight names and shapes that differ", 1, found)


def test_plans_that_nnunetv2_wrote(
    shared: Path, run_peer: Callable[..., Any], no_differences: Parity, tmp_path: Path
) -> None:
    from compare_plans import differences

    files = sorted(shared.glob("reference/*/nnUNet*Plans.json"))
    if not files:
        pytest.skip(f"there are no plans of nnunetv2 in {shared / 'reference'}")
    asked = {"splits": [], "moves": [], "plans": [json.loads(file.read_text()) for file in files]}
    answers = run_peer("peer_plans_as_read.py", asked, raw=tmp_path, preprocessed=tmp_path / "theirs")["plans"]
    for file, plans, theirs in zip(files, asked["plans"], answers, strict=True):
        made = decode_plan(plans, file)
        for name, configuration in made.configurations.items():
            expected, ours = theirs[name], as_told(made, configuration)
            for side in (ours, expected):
                side["weights"] = list(side["weights"].items())
            found = differences(json.loads(json.dumps(ours)), expected, f"{file.parent.name}, {name}: ")
            no_differences("plans of nnunetv2 as read: settings, weight names and shapes that differ", 1, found)


def test_broken_plans(answers: dict[str, Any], base: dict[str, Any], parity: Parity) -> None:
    first = len(edited_plans(base))
    for number, (plans, name) in enumerate(broken_plans(base).values()):
        assert "error" in answers["plans"][first + number][name]
        with pytest.raises(DataError, match=name):
            decode_plan(plans, Path("plans.json"))
    told = "broken plans (circles, missing parents, unknown old networks): accepted by either"
    parity(told, len(broken_plans(base)), 0, 0, section="Planning")


def as_told(plan: Plan, found: Configuration) -> dict[str, Any]:
    """A configuration in the words of `peer_plans_as_read.py`."""
    resamplers = {
        "data": found.resample_data,
        "seg": found.resample_seg,
        "probabilities": found.resample_probabilities,
    }
    return {
        "data_identifier": found.data_identifier,
        "preprocessor": found.preprocessor,
        "batch_size": found.batch_size,
        "patch_size": found.patch_size,
        "median_shape": found.median_shape,
        "spacing": found.spacing,
        "normalization": [ref.name for ref in found.normalization],
        "use_mask_for_norm": found.use_mask_for_norm,
        "resamplers": {what: [ref.name, ref.options] for what, ref in resamplers.items()},
        "network": found.architecture.name,
        "network_arguments": found.architecture.options,
        "imported": found.architecture_imports,
        "batch_dice": found.batch_dice,
        "previous_stage": found.previous_stage,
        "next_stage": list(found.next_stage),
        "weights": weights(found.architecture.name, json.dumps(found.architecture.options)),
        "intensities": encode_channels(plan.channels),
        "reader": plan.reader.name,
        "transpose": [plan.transpose_forward, plan.transpose_backward],
    }


@cache
def weights(name: str, arguments: str) -> dict[str, list[int]]:
    build = Kernel(discover=False).registry.build("architectures", name)
    with torch.device("meta"):
        network = build(1, 3, deep_supervision=True, **json.loads(arguments))
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
