"""BIDS derivatives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from segplug.errors import DataError, UsageError
from segplug.runtime.project import Project
from segplug.stages.convert import ConvertedDataset, convert


def make(project: Project, source: Any, **options: Any) -> ConvertedDataset:
    made = convert(project, source.folder, "Dataset400_Brain", options=options)
    assert made.converter == "bids"
    assert made.verification is not None
    assert made.verification.errors == ()
    return made


def test_images_and_segmentations_of_sessions(bids: Any, project: Project) -> None:
    before = bids.content()
    made = make(project, bids, channel=["FLAIR", "T1w=T1"])
    assert bids.content() == before
    cases = {f"sub-{s}_ses-{t}" for s in ("01", "02") for t in "ab"}
    assert {p.name.removesuffix(".nii.gz") for p in (made.folder / "labelsTr").iterdir()} == cases
    assert json.loads((made.folder / "dataset.json").read_text()) == {
        "channel_names": {"0": "FLAIR", "1": "T1"},
        "labels": {"background": 0, "left white matter": 1, "right white matter": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    inside = "sub-02/ses-a/anat/sub-02_ses-a"
    for number, suffix in enumerate(("FLAIR", "T1w")):
        taken = (made.folder / f"imagesTr/sub-02_ses-a_{number:04d}.nii.gz").read_bytes()
        assert taken == (bids.folder / f"{inside}_{suffix}.nii.gz").read_bytes()
    old = nibabel.load(bids.folder / f"derivatives/manual/{inside}_space-orig_dseg.nii.gz")
    new = nibabel.load(made.folder / "labelsTr/sub-02_ses-a.nii.gz")
    assert np.array_equal(new.affine, old.affine)
    assert np.array_equal(np.asanyarray(new.dataobj), np.searchsorted([0, 2, 41], np.asanyarray(old.dataobj)))
    assert any("right white matter 41 -> 2" in note for note in made.notes)
    record = json.loads((made.folder / "conversion.json").read_text())
    assert record["labels"] == {"left white matter": ["2"], "right white matter": ["41"]}


def test_the_nearest_table_counts(bids: Any, project: Project) -> None:
    near = bids.folder / "derivatives/manual/sub-01/sub-01_dseg.tsv"
    near.write_text("index\tname\n2\tWM\n41\tright white matter\n")
    with pytest.raises(
        DataError, match=r"sub-01_dseg.tsv: found the name 'WM' for label 2; expected 'left white matter'"
    ):
        make(project, bids, channel=["T1w"])
    made = make(project, bids, channel=["T1w"], label=["white matter=2,41"])
    assert json.loads((made.folder / "dataset.json").read_text())["labels"] == {"background": 0, "white matter": 1}


def test_without_a_table(bids: Any, project: Project) -> None:
    (bids.folder / "derivatives/manual/dseg.tsv").unlink()
    made = make(project, bids, channel=["T1w"])
    assert json.loads((made.folder / "dataset.json").read_text())["labels"] == {
        "background": 0,
        "label_2": 1,
        "label_41": 2,
    }


def test_a_damaged_table(bids: Any, project: Project) -> None:
    table = bids.folder / "derivatives/manual/dseg.tsv"
    table.write_text("number\tname\n1\tx\n")
    with pytest.raises(DataError, match=r"dseg\.tsv: cannot be read.*expected columns index and name"):
        make(project, bids, channel=["T1w"])


def test_choices_are_the_users(bids: Any, project: Project) -> None:
    with pytest.raises(UsageError, match="several kinds: FLAIR, T1w"):
        make(project, bids)
    with pytest.raises(UsageError, match=r"no such images. There are: FLAIR, T1w"):
        make(project, bids, channel=["T2w"])
    bids.labels("derivatives/auto/sub-01/ses-a/anat/sub-01_ses-a_dseg.nii.gz", (0, 2))
    with pytest.raises(UsageError, match="auto, manual"):
        make(project, bids, channel=["T1w"])
    with pytest.raises(UsageError, match="--derivative robot"):
        make(project, bids, channel=["T1w"], derivative="robot")
    made = make(project, bids, channel=["T1w"], derivative="auto", unlabelled="test")
    assert [p.name for p in (made.folder / "labelsTr").iterdir()] == ["sub-01_ses-a.nii.gz"]
    assert {p.name for p in (made.folder / "imagesTs").iterdir()} == {
        f"sub-{s}_0000.nii.gz" for s in ("01_ses-b", "02_ses-a", "02_ses-b")
    }


def test_several_runs(bids: Any, project: Project) -> None:
    inside = "sub-01/ses-a/anat/sub-01_ses-a"
    for run in ("1", "2"):
        bids.image(f"{inside}_run-{run}_T1w.nii.gz")
    (bids.folder / f"{inside}_T1w.nii.gz").unlink()
    with pytest.raises(DataError) as caught:
        make(project, bids, channel=["T1w"])
    assert "sub-01_ses-a: " in str(caught.value)
    assert "found 2 T1w images: sub-01_ses-a_run-1_T1w.nii.gz, sub-01_ses-a_run-2_T1w.nii.gz" in str(caught.value)
    made = make(project, bids, channel=["T1w"], where=["run-2"])
    taken = (made.folder / "imagesTr/sub-01_ses-a_0000.nii.gz").read_bytes()
    assert taken == (bids.folder / f"{inside}_run-2_T1w.nii.gz").read_bytes()


def test_several_segmentations(bids: Any, project: Project) -> None:
    for desc in ("one", "two"):
        bids.labels(f"derivatives/manual/sub-01/ses-a/anat/sub-01_ses-a_space-orig_desc-{desc}_dseg.nii.gz", (0, 2))
    with pytest.raises(DataError, match=r"sub-01_ses-a.*one segmentation a case.*--where desc-"):
        make(project, bids, channel=["T1w"])


def test_where_chooses_among_the_segmentations_of_a_case(bids: Any, project: Project) -> None:
    folder = "derivatives/manual/sub-{}/ses-{}/anat/sub-{}_ses-{}_space-orig{}_dseg.nii.gz"
    for desc in ("one", "two"):
        bids.labels(folder.format("01", "a", "01", "a", f"_desc-{desc}"), (0, 2))
    made = make(project, bids, channel=["T1w"], where=["desc-two"])
    every = {f"sub-{s}_ses-{t}.nii.gz" for s in ("01", "02") for t in "ab"}
    assert {
        f.name for f in (made.folder / "labelsTr").iterdir()
    } == every  # the others' only segmentations have no desc
    shutil.rmtree(made.folder)
    other = bids.folder / folder.format("02", "b", "02", "b", "")
    other.rename(other.with_name(other.name.replace("_dseg", "_desc-one_dseg")))
    made = make(project, bids, channel=["T1w"], where=["desc-two"])
    assert {f.name for f in (made.folder / "labelsTr").iterdir()} == every - {"sub-02_ses-b.nii.gz"}
    assert "1 case with other segmentations alone left out: sub-02_ses-b" in made.notes


def test_a_missing_channel(bids: Any, project: Project) -> None:
    (bids.folder / "sub-02/ses-b/anat/sub-02_ses-b_FLAIR.nii.gz").unlink()
    with pytest.raises(DataError, match=r"sub-02_ses-b.*missing channel.*no image of FLAIR"):
        make(project, bids, channel=["T1w", "FLAIR"])


def test_other_spaces_are_those_of_derivatives(bids: Any, project: Project) -> None:
    inside = "derivatives/mni/sub-01/anat/sub-01_space-MNI152"
    image = bids.image(f"{inside}_desc-preproc_T1w.nii.gz")
    bids.image("sub-01/anat/sub-01_T1w.nii.gz")
    bids.labels(f"{inside}_dseg.nii.gz", (0, 1))
    made = make(project, bids, channel=["T1w"], derivative="mni", label=["brain=1"])
    assert (made.folder / "imagesTr/sub-01_0000.nii.gz").read_bytes() == image.read_bytes()


def test_no_segmentation(bids: Any, project: Project) -> None:
    for path in bids.folder.rglob("*_dseg.nii.gz"):
        path.unlink()
    with pytest.raises(DataError, match="found no segmentation; expected derivatives"):
        make(project, bids, channel=["T1w"])


def test_a_real_data_set_put_into_bids(shared: Path, tmp_path: Path, project: Project) -> None:
    source, target = shared / "datasets" / "Dataset004_Hippocampus", tmp_path / "bids"
    names = sorted(p.name.removesuffix(".nii.gz") for p in (source / "labelsTr").iterdir())[:3]
    for name in names:
        subject = f"sub-{name.removeprefix('hippocampus_')}"
        inside = f"{subject}/anat"
        for folder in (target / inside, target / "derivatives" / "experts" / inside):
            folder.mkdir(parents=True)
        shutil.copyfile(source / f"imagesTr/{name}_0000.nii.gz", target / inside / f"{subject}_T1w.nii.gz")
        mask = target / "derivatives" / "experts" / inside / f"{subject}_dseg.nii.gz"
        shutil.copyfile(source / f"labelsTr/{name}.nii.gz", mask)
    table = target / "derivatives" / "experts" / "dseg.tsv"
    table.write_text("index\tname\n0\tbackground\n1\tAnterior\n2\tPosterior\n")
    made = convert(project, target, 4)
    assert made.converter == "bids"
    assert made.verification is not None
    assert made.verification.errors == ()
    assert json.loads((made.folder / "dataset.json").read_text())["labels"] == {
        "background": 0,
        "Anterior": 1,
        "Posterior": 2,
    }
    for name in names:
        case = f"sub-{name.removeprefix('hippocampus_')}"
        for new, old in ((f"imagesTr/{case}_0000", f"imagesTr/{name}_0000"), (f"labelsTr/{case}", f"labelsTr/{name}")):
            assert (made.folder / f"{new}.nii.gz").read_bytes() == (source / f"{old}.nii.gz").read_bytes()
