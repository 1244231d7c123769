"""Folds made on purpose: by groups, alike in strata, more or fewer of them."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from segplug import Component, hookimpl
from segplug.errors import DataError, PluginError, UsageError
from segplug.kernel import Kernel
from segplug.model import ComponentRef, Split
from segplug.runtime.project import Project
from segplug.runtime.splits import find_split, read_splits
from segplug.runtime.workspace import Workspace
from segplug.stages.split_folds import split_folds
from segplug.testing import Phantom, write_phantom_dataset
from segplug_builtin.splitters import grouped_kfold

NAME = "Dataset504_Grouped"


@given(data=st.data(), folds=st.integers(2, 7), seed=st.integers(0, 5))
def test_groups_stay_together_and_each_case_is_validated_once(data, folds, seed):
    groups = {f"case_{n:02d}": data.draw(st.sampled_from("abcdefgh")) for n in range(data.draw(st.integers(2, 30)))}
    strata = {case: data.draw(st.sampled_from("xyz")) for case in groups}
    if len(set(groups.values())) < 2:
        with pytest.raises(DataError, match="of one group"):
            grouped_kfold(list(groups), groups=groups, folds=folds)
        return
    made = grouped_kfold(list(groups), groups=groups, strata=strata, folds=folds, seed=seed)
    assert len(made) == min(folds, len(set(groups.values())))
    assert sorted(case for split in made for case in split.val) == sorted(groups)
    for split in made:
        assert split.val
        assert sorted((*split.train, *split.val)) == sorted(groups)
        assert not {groups[c] for c in split.train} & {groups[c] for c in split.val}
    assert made == grouped_kfold(list(reversed(groups)), groups=groups, strata=strata, folds=folds, seed=seed)


@given(counts=st.lists(st.integers(5, 40), min_size=1, max_size=4))
def test_strata_are_shared_out_evenly(counts):
    strata = {f"{s}_{n:02d}": str(s) for s, count in enumerate(counts) for n in range(count)}
    for split in grouped_kfold(list(strata), strata=strata):
        found = Counter(strata[case] for case in split.val)
        for stratum, count in enumerate(counts):
            assert count // 5 <= found[str(stratum)] <= -(-count // 5)


def test_other_seeds_make_other_folds_and_cases_need_a_group():
    groups = {f"case_{n:02d}": str(n // 2) for n in range(20)}
    assert grouped_kfold(list(groups), groups=groups) != grouped_kfold(list(groups), groups=groups, seed=1)
    with pytest.raises(DataError, match="1 cases without a group: new"):
        grouped_kfold([*groups, "new"], groups=groups)


@pytest.fixture
def project(tmp_path):
    write_phantom_dataset(tmp_path / "raw" / NAME, Phantom((4, 12, 10)), cases=8)
    roots = (tmp_path / part for part in ("raw", "preprocessed", "results"))
    with Project(Workspace(*roots), Kernel(discover=False), workers=0) as opened:
        yield opened


@pytest.fixture
def table(tmp_path):
    rows = [f"phantom_{n:03d},patient{n // 2},{'AB'[n % 2]}" for n in range(8)]
    file = tmp_path / "patients.csv"
    file.write_text("\n".join(["case,patient,scanner", *rows]))
    return file


def test_a_table_or_a_pattern_names_groups(project, table):
    made = split_folds(project, 504, group=f"{table}:patient", folds=4)
    assert [len(split.val) for split in made.splits] == [2] * 4
    assert find_split(project, NAME, sorted(made.groups), 1) == made.splits[1]
    again = split_folds(project, 504, group=r"phantom_00(?P<group>\d)", overwrite=True)
    assert len(again.splits) == 5
    assert not again.kept
    strata = split_folds(project, NAME, stratify=f"{table}:scanner", folds=2, overwrite=True)
    assert [sorted(strata.strata[c] for c in split.val) for split in strata.splits] == [["A", "A", "B", "B"]] * 2


def test_nnunets_folds_without_any_wish(project):
    made = split_folds(project, 504)
    assert not made.kept
    names = [f"phantom_{n:03d}" for n in range(8)]
    assert find_split(project, NAME, names, 0) == made.splits[0]
    assert split_folds(project, 504).kept
    assert split_folds(project, 504, splitter="kfold").kept
    with pytest.raises(UsageError, match=r"other folds are there.*--overwrite"):
        split_folds(project, 504, folds=3)
    assert len(split_folds(project, 504, folds=3, overwrite=True).splits) == 3


def test_folds_of_the_raw_data_set_are_taken_over(project):
    own = [{"train": ["phantom_000", "phantom_001"], "val": ["phantom_002"]}]
    (project.workspace.raw_folder(NAME) / "splits_final.json").write_text(json.dumps(own))
    with pytest.raises(UsageError, match="the raw data set brings its own folds"):
        split_folds(project, 504, folds=3)
    made = split_folds(project, 504)
    assert (made.kept, [split.val for split in made.splits]) == (False, [("phantom_002",)])
    assert json.loads(made.file.read_text()) == own
    assert split_folds(project, 504).kept


def test_names_with_dots_of_which_only_preprocessed_data_is_there(project):
    folder = project.workspace.preprocessed_folder(NAME)
    (folder / "gt_segmentations").mkdir(parents=True)
    names = [f"scan.1.{number}" for number in range(6)]
    for name in names:
        (folder / "gt_segmentations" / f"{name}.nii.gz").touch()
    shutil.move(project.workspace.raw_folder(NAME) / "dataset.json", folder)
    shutil.rmtree(project.workspace.raw_folder(NAME))
    made = split_folds(project, 504)
    assert sorted(case for split in made.splits for case in split.val) == names


def test_edited_folds_are_checked_where_they_are_shown(project):
    made = split_folds(project, 504)
    folds = json.loads(made.file.read_text())
    folds[1]["val"].append(folds[1]["train"][0])
    made.file.write_text(json.dumps(folds))
    with pytest.warns(UserWarning, match="fold 1 trains on 1 of its validation cases"):
        assert split_folds(project, 504).kept
    folds[1]["val"][-1] = "nope"
    made.file.write_text(json.dumps(folds))
    with pytest.raises(DataError, match=r"splits_final\.json: fold 1 names 1 case not there: nope"):
        split_folds(project, 504)


def test_mistakes_are_told(project, table):
    with pytest.raises(UsageError, match="--folds 1"):
        split_folds(project, 504, folds=1)
    with pytest.raises(UsageError, match=r"--stratify .*no column 'site'"):
        split_folds(project, 504, stratify=f"{table}:site")
    with pytest.raises(DataError, match=r"8 cases without a group|found nothing of it"):
        split_folds(project, 504, group=r"patient\d+")
    raw = project.workspace.raw_folder(504) / "splits_final.json"
    raw.write_text(json.dumps([{"train": ["phantom_000"], "val": ["phantom_001"]}]))
    with pytest.raises(UsageError, match="brings its own folds"):
        split_folds(project, 504, folds=2)
    with pytest.raises(DataError, match="on both sides"):
        split_folds(project, 504, splitter=ComponentRef("leaky"))


class Leaky:
    """A plugin whose folds train on what they validate."""

    def __call__(self, cases):
        from segplug.model import Split

        return [Split(tuple(cases), tuple(cases))]


@pytest.fixture(autouse=True)
def leaky(request):
    if "project" not in request.fixturenames:
        return
    from segplug import Component, hookimpl

    class Plugin:
        @hookimpl
        def segplug_splitters(self):
            yield Component("leaky", Leaky(), "trains on what it validates")

    request.getfixturevalue("project").kernel.register(Plugin(), "leaky")


def test_patients_of_acdc_stay_together(shared, tmp_path):
    with Project(Workspace(shared / "datasets", tmp_path), Kernel(discover=False), workers=0) as project:
        made = split_folds(project, 27, group=r"patient\d+")
    patients = [{made.groups[c] for c in split.val} for split in made.splits]
    assert sum(map(len, patients)) == len(set(made.groups.values()))
    assert max(map(len, patients)) - min(map(len, patients)) <= 1
    assert read_splits(made.file) == list(made.splits)


def test_the_command(project, table):
    from segplug.cli.main import app

    roots = [t for part in ("raw", "preprocessed") for t in (f"--{part}", str(getattr(project.workspace, part)))]
    wanted = ["--group", f"{table}:patient", "--stratify", f"{table}:scanner", "--format", "json"]
    done = CliRunner().invoke(app, [*roots, "splits", "504", "--folds", "2", *wanted])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0] == {
        "fold": 0,
        "training cases": 4,
        "validation cases": 4,
        "validation groups": 2,
        "validation strata": ["A 2", "B 2"],
    }


class Halves:
    @hookimpl
    def segplug_splitters(self):
        yield Component("halves", halves, "two folds")
        yield Component("pairs", lambda cases: [(cases[:1], cases[1:])], "tuples in place of folds")
        yield Component("nothing", lambda cases: None, "no folds at all")


def halves(cases, *, first=1):
    return [Split(tuple(cases[:first]), tuple(cases[first:])), Split(tuple(cases[first:]), tuple(cases[:first]))]


def test_a_splitters_options_arrive(project):
    project.kernel.register(Halves(), "halves")
    made = split_folds(project, 504, splitter="halves,first=3")
    assert [len(split.train) for split in made.splits] == [3, 5]
    assert len(split_folds(project, 504, splitter="kfold,folds=4", overwrite=True).splits) == 4
    with pytest.raises(UsageError, match="--folds: --splitter gives folds too"):
        split_folds(project, 504, splitter="kfold,folds=4", folds=3)


@pytest.mark.parametrize(
    ("error", "splitter", "told"),
    [
        (PluginError, "pairs", r"^splitters: 'pairs' returned a tuple as a fold; expected .*Split\(train, val\)$"),
        (PluginError, "nothing", "^splitters: 'nothing' returned a NoneType; expected"),
        (UsageError, "halvs", "^--splitter: no component 'halvs'.*Did you mean 'halves'"),
        (UsageError, "halves,last=3", r"'last'\. It takes: first$"),
    ],
)
def test_what_is_wrong_with_a_splitter_is_told_in_a_line(project, error, splitter, told):
    project.kernel.register(Halves(), "halves")
    with pytest.raises(error, match=told):
        split_folds(project, 504, splitter=splitter)
    assert not project.workspace.splits_file(NAME).exists()


def test_groups_for_a_splitter_that_takes_none(project):
    project.kernel.register(Halves(), "halves")
    with pytest.raises(UsageError, match=r"^--group: splitter 'halves' takes no groups .*it takes none") as told:
        split_folds(project, 504, splitter="halves", group="(.*)_")
    assert "phantom_" not in str(told.value)
    with pytest.raises(UsageError, match=r"^--stratify: splitter 'kfold' takes no strata .*it takes --folds, --seed"):
        split_folds(project, 504, splitter="kfold", stratify=".")


def test_a_training_is_told_of_it_too(project):
    project.kernel.register(Halves(), "halves")
    with pytest.raises(PluginError, match="'pairs' returned a tuple as a fold"):
        find_split(project, NAME, ["a", "b"], 0, splitter="pairs")
    assert not project.workspace.splits_file(NAME).exists()
