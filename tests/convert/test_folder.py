"""Images and masks by pattern."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture

from segplug.errors import DataError, UsageError
from segplug.runtime.project import Project
from segplug.stages.convert import ConvertedDataset, convert
from segplug_builtin.converters.file_patterns import compile_pattern
from segplug_builtin.converters.label_names import parse_labels


def make(project: Project, source: Any, **options: Any) -> ConvertedDataset:
    made = convert(project, source.folder, "Dataset300_Scans", converter="folder", options=options)
    assert made.verification is not None
    assert made.verification.errors == ()
    return made


def description(made: ConvertedDataset) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made.folder / "dataset.json").read_text())
    return found


def labels_of(made: ConvertedDataset, case: str) -> Any:
    return np.asanyarray(nibabel.load(made.folder / f"labelsTr/{case}.nii.gz").dataobj)


def test_plain_folders_are_recognised(folder: Any, project: Project) -> None:
    for case in ("a", "b"):
        folder.image(f"images/{case}.nii.gz")
        folder.labels(f"masks/{case}.nii.gz")
    made = convert(project, folder.folder, 300)
    assert made.folder.name == "Dataset300_scans"
    assert made.converter == "folder"
    assert made.recognised_by == "files of the same names in images and masks"
    assert description(made) == {
        "channel_names": {"0": "image"},
        "labels": {"background": 0, "label_1": 1, "label_2": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    assert any("--channel CT" in note for note in made.notes)


@pytest.mark.parametrize("patterns", [{}, {"images": "images/{case}.PNG", "masks": "masks/{case}.PNG"}])
def test_endings_in_capitals_become_small(tmp_path: Path, project: Project, patterns: dict[str, str]) -> None:
    source = tmp_path / "scans"
    for part in ("images", "masks"):
        (source / part).mkdir(parents=True)
        for shift, case in enumerate("ab"):
            Picture.fromarray(np.eye(8, k=shift, dtype=np.uint8)).save(source / part / f"{case}.PNG")
    made = convert(project, source, "Dataset300_Scans", converter="folder", options=patterns)
    assert made.verification is not None
    assert made.verification.errors == ()
    assert description(made)["file_ending"] == ".png"
    assert sorted(p.name for p in made.folder.glob("*sTr/*")) == ["a.png", "a_0000.png", "b.png", "b_0000.png"]


def test_channels_in_the_order_given(folder: Any, project: Project) -> None:
    for case in ("p_01", "p_02"):
        for channel in ("t1", "t1_ce", "flair"):
            folder.image(f"{case}/x_{case}_{channel}.nii.gz")
        folder.labels(f"{case}/seg_{case}.nii.gz")
    made = make(
        project,
        folder,
        images="{case}/x_{case}_{channel}.nii.gz",
        masks="{case}/seg_{case}.nii.gz",
        channel=["t1_ce=T1 with contrast", "flair", "t1"],
        label=["core=1", "oedema=2"],
    )
    assert description(made)["channel_names"] == {"0": "T1 with contrast", "1": "flair", "2": "t1"}
    for number, channel in enumerate(("t1_ce", "flair", "t1")):
        image = made.folder / f"imagesTr/p_01_{number:04d}.nii.gz"
        assert image.read_bytes() == (folder.folder / f"p_01/x_p_01_{channel}.nii.gz").read_bytes()
    assert (made.folder / "labelsTr/p_02.nii.gz").read_bytes() == (folder.folder / "p_02/seg_p_02.nii.gz").read_bytes()


def test_a_regular_expression(folder: Any, project: Project) -> None:
    for case in ("s1/v1", "s1/v2"):
        folder.image(f"{case}/img-ct.nii.gz")
        folder.labels(f"{case}/seg.nii.gz", (0, 1))
    made = make(
        project,
        folder,
        images=r"re:(?P<case>s\d/v\d)/img-(?P<channel>\w+)\.nii\.gz",
        masks=r"re:(?P<case>.+)/seg\.nii\.gz",
        channel=["ct=CT"],
    )
    assert {p.name for p in (made.folder / "labelsTr").iterdir()} == {"s1_v1.nii.gz", "s1_v2.nii.gz"}
    assert description(made)["channel_names"] == {"0": "CT"}


def test_numbers_of_labels_are_mapped(folder: Any, project: Project) -> None:
    folder.image("images/a.nii.gz")
    mask = folder.labels("masks/a.nii.gz", (0, 7, 20, 30, 100, 255))
    options = {"label": ["liver=20", "lesion=30,100", "ignore=255", "background=7"]}
    made = make(project, folder, **options)
    assert description(made)["labels"] == {"background": 0, "liver": 1, "lesion": 2, "ignore": 3}
    before, after = np.asanyarray(nibabel.load(mask).dataobj), labels_of(made, "a")
    table = {0: 0, 7: 0, 20: 1, 30: 2, 100: 2, 255: 3}
    assert np.array_equal(after, np.vectorize(table.__getitem__)(before))
    assert np.array_equal(nibabel.load(made.folder / "labelsTr/a.nii.gz").affine, nibabel.load(mask).affine)
    record = json.loads((made.folder / "conversion.json").read_text())
    assert record["labels"]["lesion"] == ["30", "100"]
    assert record["options"] == options


def test_numbers_nobody_named(folder: Any, project: Project, raw: Path) -> None:
    folder.image("images/a.nii.gz")
    mask = folder.labels("masks/a.nii.gz", (0, 10, 20))
    with pytest.raises(DataError) as caught:
        make(project, folder, label=["liver=10"])
    assert f"a (labelsTr/a.nii.gz): {mask}: found the label 20 (" in str(caught.value)
    assert "expected 0, 10" in str(caught.value)
    assert "--label NAME=20" in str(caught.value)
    assert not list(raw.glob("*"))


def test_a_mask_of_each_structure(folder: Any, project: Project) -> None:
    masks = {}
    for case in ("a", "b"):
        folder.image(f"images/{case}.nii.gz")
        whole = np.random.default_rng(ord(case)).integers(0, 3, (8, 7, 6))
        for number, name in ((1, "liver"), (2, "spleen")):
            if (case, name) != ("b", "spleen"):
                folder.write(f"segs/{case}/{name}.nii.gz", ((whole == number) * 255).astype(np.uint8))
        masks[case] = whole if case == "a" else np.where(whole == 1, 1, 0)
    made = make(
        project, folder, images="images/{case}.nii.gz", masks="segs/{case}/{label}.nii.gz", label=["spleen", "liver"]
    )
    assert description(made)["labels"] == {"background": 0, "spleen": 1, "liver": 2}
    for case, whole in masks.items():
        assert np.array_equal(labels_of(made, case), np.array([0, 2, 1])[whole])
    assert "taken as not present, for there is no mask of it: b (spleen)" in made.notes


def test_overlapping_masks(folder: Any, project: Project) -> None:
    folder.image("images/a.nii.gz")
    one, two = np.zeros((2, 8, 7, 6), np.uint8)
    one[:4], two[2:] = 1, 1
    first = folder.write("segs/a_organ.nii.gz", one)
    second = folder.write("segs/a_lesion.nii.gz", two)
    options = {
        "images": "images/{case}.nii.gz",
        "masks": "segs/{case}_{label}.nii.gz",
        "label": ["organ", "lesion"],
    }
    with pytest.raises(DataError) as caught:
        make(project, folder, **options)
    assert f"{second}: found {2 * 7 * 6} voxels that belong to {first} too" in str(caught.value)
    assert "--overlap" in str(caught.value)
    made = make(project, folder, **options, overlap=True)
    assert np.array_equal(labels_of(made, "a"), np.where(two, 2, one))


def test_a_mask_that_is_none(folder: Any, project: Project) -> None:
    folder.image("images/a.nii.gz")
    folder.labels("segs/a_organ.nii.gz", (0, 1, 2))
    with pytest.raises(DataError, match=r"a_organ.nii.gz: found the values 0, 1, 2; expected a mask of 0 and one"):
        make(project, folder, images="images/{case}.nii.gz", masks="segs/{case}_{label}.nii.gz")


def test_masks_on_different_grids(folder: Any, project: Project) -> None:
    folder.image("images/a.nii.gz")
    folder.labels("segs/a_organ.nii.gz", (0, 1))
    folder.labels("segs/a_lesion.nii.gz", (0, 1), (8, 7, 5))
    with pytest.raises(DataError, match=r"a_organ.nii.gz: found shape \(6, 7, 8\); expected \(5, 7, 8\)"):
        make(project, folder, images="images/{case}.nii.gz", masks="segs/{case}_{label}.nii.gz")


def test_pictures(folder: Any, project: Project) -> None:
    random = np.random.default_rng(0)
    for case in ("a", "b"):
        for part in ("images", "masks"):
            (folder.folder / part).mkdir(parents=True, exist_ok=True)
        Picture.fromarray(random.integers(0, 255, (9, 8), np.uint8)).save(folder.folder / f"images/{case}.png")
        mask = (random.integers(0, 2, (9, 8)) * 255).astype(np.uint8)
        Picture.fromarray(mask).save(folder.folder / f"masks/{case}.png")
    made = make(project, folder, label=["cell=255"])
    mask = np.asarray(Picture.open(folder.folder / "masks/b.png"))
    assert np.array_equal(np.asarray(Picture.open(made.folder / "labelsTr/b.png")), mask // 255)


def test_real_pictures_of_three_channels(shared: Path, tmp_path: Path, project: Project) -> None:
    source = shared / "datasets" / "Dataset120_Nuclei"
    names = sorted(p.name for p in (source / "labelsTr").iterdir())[:3]
    for name in names:
        for part, file in (("images", name.replace(".png", "_0000.png")), ("masks", name)):
            (tmp_path / "in" / part).mkdir(parents=True, exist_ok=True)
            of = source / ("imagesTr" if part == "images" else "labelsTr") / file
            (tmp_path / "in" / part / name).write_bytes(of.read_bytes())
    made = convert(project, tmp_path / "in", 120)
    assert made.verification is not None
    assert made.verification.errors == ()
    assert description(made)["channel_names"] == {"0": "R", "1": "G", "2": "B"}


def test_coloured_masks_are_refused(folder: Any, project: Project) -> None:
    for part, shape in (("images", (9, 8)), ("masks", (9, 8, 3))):
        (folder.folder / part).mkdir(parents=True)
        picture = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        Picture.fromarray(picture).save(folder.folder / part / "a.png")
    with pytest.raises(DataError, match=r"masks/a.png: a label map with 3 channels; expected one"):
        make(project, folder, label=["cell=255"])


def test_masks_in_another_format(folder: Any, project: Project) -> None:
    import SimpleITK as sitk

    folder.image("images/a.nii.gz")
    mask = folder.labels("nifti/a.nii.gz")
    (folder.folder / "masks").mkdir()
    sitk.WriteImage(sitk.ReadImage(str(mask)), str(folder.folder / "masks/a.nrrd"))
    made = make(project, folder, images="images/{case}.nii.gz", masks="masks/{case}.nrrd")
    assert np.array_equal(labels_of(made, "a"), np.asanyarray(nibabel.load(mask).dataobj))


def test_tiff_stacks_keep_their_spacing(folder: Any, project: Project) -> None:
    import tifffile

    for part, high in (("images", 200), ("masks", 2)):
        (folder.folder / part).mkdir(parents=True)
        stack = np.random.default_rng(high).integers(0, high, (9, 11, 13)).astype(np.uint8)
        tifffile.imwrite(folder.folder / part / "a.tif", stack, photometric="minisblack")
    folder.json("images/a.json", {"spacing": [3.0, 1.0, 1.0]})
    made = make(project, folder, label=["cell=1"])
    for part in ("imagesTr", "labelsTr"):
        assert json.loads((made.folder / part / "a.json").read_text()) == {"spacing": [3.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("masks", "labels"),
    [("masks/{case}.tif", ["cell=2"]), ("parts/{case}_{label}.tif", ["nucleus", "cell"])],
    ids=["renumbered", "merged"],
)
def test_label_maps_of_stacks_made_anew_have_the_images_spacing(
    folder: Any, project: Project, masks: str, labels: list[str]
) -> None:
    import tifffile

    blank = np.zeros((9, 11, 13), np.uint8)
    for name, stack in (
        ("images/a.tif", np.random.default_rng(0).integers(0, 200, blank.shape).astype(np.uint8)),
        ("masks/a.tif", np.where(np.arange(13) > 8, 2, blank).astype(np.uint8)),
        ("parts/a_nucleus.tif", np.where(np.arange(13) > 9, 1, blank).astype(np.uint8)),
        ("parts/a_cell.tif", np.where(np.arange(13) < 3, 1, blank).astype(np.uint8)),
    ):
        (folder.folder / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder.folder / name, stack, photometric="minisblack")
    folder.json("images/a.json", {"spacing": [3.0, 1.0, 1.0]})
    made = make(project, folder, images="images/{case}.tif", masks=masks, label=labels)
    for part in ("imagesTr", "labelsTr"):
        assert json.loads((made.folder / part / "a.json").read_text()) == {"spacing": [3.0, 1.0, 1.0]}


def test_an_expression_for_masks_may_find_more_than_was_asked_for(folder: Any, project: Project) -> None:
    folder.image("a.nii.gz")
    folder.labels("a_liver.nii.gz", (0, 1))
    folder.labels("a_tumour.nii.gz", (0, 1))
    images = r"re:(?P<case>[a-z])\.nii\.gz"
    masks = r"re:(?P<case>[a-z])(_(?P<label>\w+))?\.nii\.gz"
    made = make(project, folder, images=images, masks=masks.replace(")?", ")"), label=["liver"])
    assert description(made)["labels"] == {"background": 0, "liver": 1}
    shutil.rmtree(made.folder)
    with pytest.raises(DataError, match=r"a\.nii\.gz: found by --masks .* without a label, as 1 of 3 masks"):
        make(project, folder, images=images, masks=masks)
    named = masks.replace(")?", ")")
    with pytest.raises(UsageError, match=r"--label lung: .* found masks of liver, tumour alone"):
        make(project, folder, images=images, masks=named, label=["lung"])
    with pytest.raises(DataError, match=r"a_liver\.nii\.gz: found by --masks .* without a case, as 2 of 2 files"):
        make(project, folder, images=images, masks=r"re:(?P<case>\d)?[a-z]_(?P<label>\w+)\.nii\.gz")


def test_masks_keep_the_spacing_that_their_format_holds(folder: Any, project: Project) -> None:
    import tifffile

    stack = np.random.default_rng(0).integers(0, 200, (9, 11, 13)).astype(np.uint8)
    (folder.folder / "images").mkdir(parents=True)
    tifffile.imwrite(folder.folder / "images/a.tif", stack, photometric="minisblack")
    folder.json("images/a.json", {"spacing": [3.0, 1.0, 1.0]})
    (folder.folder / "masks").mkdir()
    mask = nibabel.Nifti1Image(np.zeros((13, 11, 9), np.uint8), np.diag([1.0, 1.0, 7.0, 1.0]))
    mask.dataobj[:4] = 1
    nibabel.save(mask, folder.folder / "masks/a.nii.gz")
    made = convert(
        project,
        folder.folder,
        "Dataset300_Scans",
        converter="folder",
        options={"images": "images/{case}.tif", "masks": "masks/{case}.nii.gz", "label": ["cell=1"]},
    )
    assert json.loads((made.folder / "labelsTr/a.json").read_text()) == {"spacing": [7.0, 1.0, 1.0]}
    assert made.verification is not None
    assert any("spacing" in str(error) for error in made.verification.errors)


def test_images_without_a_mask(folder: Any, project: Project) -> None:
    for case in ("a", "b", "c"):
        folder.image(f"images/{case}.nii.gz")
    folder.labels("masks/a.nii.gz", (0, 1))
    patterns = {"images": "images/{case}.nii.gz", "masks": "masks/{case}.nii.gz"}
    with pytest.raises(DataError, match=r"(?s)b: .*without a mask.*--unlabelled skip"):
        make(project, folder, **patterns)
    with pytest.raises(UsageError, match="--unlabelled maybe"):
        make(project, folder, **patterns, unlabelled="maybe")
    made = make(project, folder, **patterns, unlabelled="test")
    assert {p.name for p in (made.folder / "imagesTs").iterdir()} == {"b_0000.nii.gz", "c_0000.nii.gz"}
    assert description(made)["numTraining"] == 1


def test_everything_wrong_with_the_files(folder: Any, project: Project) -> None:
    folder.image("one/a_t1.nii.gz")
    folder.image("two/a_t1.nii.gz")
    folder.image("one/a_t2.nii.gz")
    folder.labels("segs/a.nii.gz")
    folder.labels("segs/z.nii.gz")
    with pytest.raises(DataError, match="2 problems") as caught:
        make(project, folder, images="**/{case}_{channel}.nii.gz", masks="segs/{case}.nii.gz")
    assert "a second image of 't1'; expected one; " in str(caught.value)
    assert "z: " in str(caught.value)
    assert "a mask without an image" in str(caught.value)


def test_a_missing_channel_and_mixed_formats(folder: Any, project: Project) -> None:
    for case in ("a", "b"):
        folder.image(f"images/{case}_t1.nii.gz")
        folder.labels(f"segs/{case}.nii.gz")
    folder.image("images/a_t2.nii")
    with pytest.raises(DataError) as caught:
        make(project, folder, images="images/{case}_{channel}.*", masks="segs/{case}.nii.gz")
    assert "b: " in str(caught.value)
    assert "no image of t2" in str(caught.value)
    assert "the ending .nii; expected .nii.gz" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "needs patterns"),
        ({"images": "x/*.nii.gz", "masks": "y/{case}.nii.gz"}, "--images x/.*: found no {case}"),
        ({"images": "re:(?P<case", "masks": "y"}, "no regular expression"),
        ({"images": "x/{case}_{modality}.nii.gz", "masks": "y"}, "the placeholder 'modality'"),
        ({"images": "images/{case}.nii.gz", "masks": "masks/{case}.nii.gz", "label": ["liver"]}, "NAME=NUMBER"),
        ({"images": "images/{case}.nii.gz", "masks": "masks/{case}.nii.gz", "label": ["a=1", "b=1"]}, "belongs to 'a'"),
        (
            {"images": "images/{case}.nii.gz", "masks": "masks/{case}.nii.gz", "channel": ["a", "b"]},
            "holds 1, and --images has no {channel}",
        ),
    ],
)
def test_options_that_make_no_sense(folder: Any, project: Project, options: dict[str, Any], told: str) -> None:
    folder.image("images/a.nii.gz")
    folder.labels("masks/a.nii.gz")
    folder.image("images/without.nii.gz")
    with pytest.raises(UsageError, match=told):
        make(project, folder, **options)


NAMES = st.text("ab1_-", min_size=1, max_size=5)


@given(case=NAMES, channel=st.text("xy", min_size=1, max_size=3), wild=NAMES)
def test_a_pattern_finds_what_was_put_in(case: str, channel: str, wild: str) -> None:
    compiled = compile_pattern("a/{case}/*_{case}_{channel}.nii.gz", {}, "--images")
    match = compiled.fullmatch(f"a/{case}/{wild}_{case}_{channel}.nii.gz")
    assert match is not None
    assert match["case"] == case
    assert match["channel"] == channel
    assert compiled.fullmatch(f"a/{case}/{wild}_{case}_{channel}xnii.gz") is None


@given(st.dictionaries(st.text("abc", min_size=1), st.sets(st.integers(1, 99), min_size=1), min_size=1))
def test_labels_are_numbered_without_gaps(labels: dict[str, set[int]]) -> None:
    given = [f"{name}={','.join(map(str, sorted(of)))}" for name, of in labels.items()]
    if sum(map(len, labels.values())) > len(set().union(*labels.values())):
        with pytest.raises(UsageError, match="belongs to"):
            parse_labels(given, numbers=True)
        return
    names = parse_labels(given, numbers=True)
    assert list(names.numbers.values()) == list(range(len(labels) + 1))
    assert {value: names.numbers[name] for name, of in labels.items() for value in of} | {0: 0} == names.mapping
