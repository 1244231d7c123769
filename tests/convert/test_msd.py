"""Medical Segmentation Decathlon."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplug.errors import DataError
from segplug.runtime.project import Project
from segplug.stages.convert import convert
from segplug_builtin.converters.fourth_axis import split_channels, volumes_of


def test_channels_become_files(msd: Any, project: Project, raw: Path) -> None:
    before = msd.content()
    made = convert(project, msd.folder)
    assert (made.folder, made.converter) == (raw / "Dataset005_Prostate", "msd")
    assert made.verification is not None
    assert made.verification.findings == ()
    assert msd.content() == before
    names = {p.name for p in (made.folder / "imagesTr").iterdir()}
    assert names == {f"case_{case}_{channel:04d}.nii.gz" for case in range(3) for channel in range(2)}
    assert {p.name for p in (made.folder / "imagesTs").iterdir()} == {"case_9_0000.nii.gz", "case_9_0001.nii.gz"}
    description = json.loads((made.folder / "dataset.json").read_text())
    assert description == {
        "name": "Prostate",
        "description": "two modalities",
        "tensorImageSize": "4D",
        "labels": {"background": 0, "PZ": 1, "TZ": 2},
        "numTraining": 3,
        "numTest": 1,
        "channel_names": {"0": "T2", "1": "ADC"},
        "file_ending": ".nii.gz",
    }
    record = json.loads((made.folder / "conversion.json").read_text())
    assert record["files"]["imagesTr/case_1_0001.nii.gz"] == ["imagesTr/case_1.nii.gz"]


def test_voxels_and_headers_are_kept(msd: Any, project: Project) -> None:
    folder = convert(project, msd.folder, check=False).folder
    for case in range(3):
        whole = nibabel.load(msd.folder / f"imagesTr/case_{case}.nii.gz")
        for channel in range(2):
            part = nibabel.load(folder / f"imagesTr/case_{case}_{channel:04d}.nii.gz")
            assert np.array_equal(np.asanyarray(part.dataobj), np.asanyarray(whole.dataobj)[..., channel])
            assert np.array_equal(part.affine, whole.affine)
            kept = [gzip.decompress(Path(f.get_filename()).read_bytes())[:348] for f in (whole, part)]
            assert kept[0][:40] == kept[1][:40]  # then come the numbers of voxels
            assert kept[0][56:] == kept[1][56:]
        label = f"labelsTr/case_{case}.nii.gz"
        assert (folder / label).read_bytes() == (msd.folder / label).read_bytes()


def test_volumes_of_one_channel_are_copied(msd: Any, project: Project) -> None:
    for path in sorted(msd.folder.rglob("images*/case*")):
        msd.image(str(path.relative_to(msd.folder)), 1 if path.stem.startswith("case_0") else 0)
    description = json.loads((msd.folder / "dataset.json").read_text())
    msd.json("dataset.json", {**description, "modality": {"0": "CT"}})
    folder = convert(project, msd.folder).folder
    for case in range(3):
        name = f"imagesTr/case_{case}"
        assert (folder / f"{name}_0000.nii.gz").read_bytes() == (msd.folder / f"{name}.nii.gz").read_bytes()


@given(
    shape=st.tuples(*[st.integers(1, 4)] * 3, st.integers(2, 4)),
    kind=st.sampled_from([">i2", "<i2", "<u1", "<f4", ">f8"]),
    scaled=st.booleans(),
)
def test_any_type_and_scaling(
    shape: tuple[int, ...], kind: str, scaled: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("split")
    stored = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    header = nibabel.Nifti1Header(endianness=kind[0])
    header.set_data_dtype(np.dtype(kind))
    image = nibabel.Nifti1Image(stored, np.diag([1.0, 2, 3, 1]), header)
    if scaled:
        image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, folder / "whole.nii")
    assert volumes_of(folder / "whole.nii") == (shape[3], True)
    targets = tuple(folder / f"{i}.nii.gz" for i in range(shape[3]))
    split_channels(targets, folder / "whole.nii")
    whole = nibabel.load(folder / "whole.nii")
    for i, target in enumerate(targets):
        part = nibabel.load(target)
        assert np.array_equal(np.asanyarray(part.dataobj), np.asanyarray(whole.dataobj)[..., i])
        assert part.get_data_dtype() == whole.get_data_dtype()


def broken(project: Project, source: Path) -> str:
    with pytest.raises(DataError) as caught:
        convert(project, source, converter="msd")
    assert not list(project.workspace.new_raw_folder("x").parent.glob("*"))
    assert not list(project.workspace.new_raw_folder("x").parent.glob(".*"))
    return str(caught.value)


def test_everything_wrong_is_told_at_once(msd: Any, project: Project) -> None:
    msd.image("imagesTr/case_1.nii.gz", 3)
    (msd.folder / "labelsTr/case_2.nii.gz").unlink()
    msd.image("imagesTs/case_9.nii.gz")
    message = broken(project, msd.folder)
    assert "3 problems" in message
    assert f"case_1: {msd.folder}/imagesTr/case_1.nii.gz: image: found 3 channels; expected 2" in message
    assert "case_9" in message
    assert "found 1 channels; expected 2" in message
    assert "case_2.nii.gz: missing label" in message


def test_a_truncated_image(msd: Any, project: Project) -> None:
    path = msd.folder / "imagesTr/case_1.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    message = broken(project, msd.folder)
    assert "case_1" in message
    assert "truncated" in message


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": {"background": 0}}, "expected labels: numbers to names"),
        ({"labels": {"0": "background", "1": "a", "2": "a"}}, "each number and each name once"),
        ({"modality": {"1": "T2", "2": "ADC"}}, "expected modality: numbers from 0"),
        ({"channel_names": {"0": "T2"}}, "nnU-Net v2 already"),
    ],
)
def test_a_wrong_description(msd: Any, project: Project, changes: dict[str, Any], told: str) -> None:
    description = json.loads((msd.folder / "dataset.json").read_text())
    msd.json("dataset.json", {**description, **changes})
    message = broken(project, msd.folder)
    assert told in message
    assert f"{msd.folder}/dataset.json" in message


def test_a_background_of_another_name(msd: Any, project: Project) -> None:
    description = json.loads((msd.folder / "dataset.json").read_text())
    msd.json("dataset.json", {**description, "labels": {"0": "Clear Label", "1": "PZ", "2": "TZ"}, "numTraining": 7})
    made = convert(project, msd.folder)
    assert json.loads((made.folder / "dataset.json").read_text())["labels"]["background"] == 0
    assert "label 0, 'Clear Label' in the source, is called background" in made.notes
    assert any("says 7" in note for note in made.notes)


def test_v1_is_not_taken_for_it(v1: Any, project: Project) -> None:
    assert "--from nnunet-v1" in broken(project, v1.folder)
