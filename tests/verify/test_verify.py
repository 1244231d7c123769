"""Every kind of damage is found, named by case and file, beside all the others; sound data has no findings."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image as PillowImage

from segplug import Component, hookimpl
from segplug.errors import DataError, PluginError
from segplug.kernel import Kernel
from segplug.model import Geometry, Image
from segplug.protocols import Outcome
from segplug.runtime.case_inspection import inspect_case
from segplug.runtime.project import Project, open_project
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.workspace import Workspace
from segplug.stages.verify import Verification, verify
from segplug_builtin.readers import read_simpleitk


def read_array(paths: Sequence[Path]) -> Image:
    return Image(np.stack([np.load(path).astype(np.float32) for path in paths]), Geometry(spacing=(1.0, 1.0, 1.0)))


def only(verification: Verification, kind: str, severity: str = "error") -> Any:
    """The one finding there is."""
    assert [(f.kind, f.severity) for f in verification.findings] == [(kind, severity)], list(
        map(str, verification.findings)
    )
    assert verification.ok == (severity == "warning")
    return verification.findings[0]


def test_a_sound_data_set(sample: Any) -> None:
    verification = sample.verify()
    assert verification.findings == ()
    assert verification.ok
    assert verification.cases == ("case_1", "case_2", "case_3")
    assert verification.reader == "SimpleITKIO"
    verification.raise_errors()


class TestFiles:
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
    @pytest.mark.parametrize("which", ["image", "label"])
    def test_truncated(self, which: str, share: float, sample: Any) -> None:
        file = sample.image("case_2", 1) if which == "image" else sample.label("case_2")
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
        finding = only(sample.verify(), "unreadable file")
        assert (finding.case, finding.file) == ("case_2", file)
        assert ("empty" if share == 0 else "truncated") in finding.found
        assert "Restore" in finding.remedy

    def test_damaged_in_the_middle(self, sample: Any) -> None:
        content = bytearray(sample.image("case_1").read_bytes())
        content[len(content) // 2] ^= 0xFF
        sample.image("case_1").write_bytes(content)
        finding = only(sample.verify(), "unreadable file")
        assert finding.case == "case_1"
        assert "gzip stream is corrupt" in finding.found

    def test_a_wrong_checksum(self, sample: Any) -> None:
        content = bytearray(sample.image("case_1").read_bytes())
        content[-6] ^= 0xFF
        sample.image("case_1").write_bytes(content)
        assert "checksum" in only(sample.verify(), "unreadable file").found

    def test_cut_before_it_was_compressed(self, sample: Any) -> None:
        content = gzip.decompress(sample.image("case_1").read_bytes())
        sample.image("case_1").write_bytes(gzip.compress(content[:-100]))
        assert "header promises" in only(sample.verify(), "unreadable file").found

    def test_another_format(self, sample: Any) -> None:
        PillowImage.fromarray(np.zeros((7, 8), np.uint8)).save(sample.folder / "x.png")
        (sample.folder / "x.png").rename(sample.image("case_3"))
        finding = only(sample.verify(), "unreadable file")
        assert "a PNG image" in finding.found
        assert finding.expected == "a NIfTI file"

    def test_a_damaged_header(self, sample: Any) -> None:
        content = bytearray(gzip.decompress(sample.image("case_1").read_bytes()))
        content[42:44] = b"\xff\xff"
        sample.image("case_1").write_bytes(gzip.compress(content))
        assert "header" in only(sample.verify(), "unreadable file").found

    def test_every_file_is_damaged(self, sample: Any) -> None:
        """No file is left to choose the reader by; still each is told with its own reason."""
        for number, file in enumerate(sorted(sample.folder.glob("*Tr/*"))):
            file.write_bytes(b"" if number % 2 else file.read_bytes()[:-20])
        verification = sample.verify()
        assert len(verification.errors) == 9
        assert {f.kind for f in verification.findings} == {"unreadable file"}
        assert sum("empty" in f.found for f in verification.findings) == 4

    def test_the_first_case_damaged_does_not_hide_the_others(self, sample: Any) -> None:
        sample.image("case_1").write_bytes(b"")
        sample.write_label("case_3", np.full((8, 7, 6), 300, np.int16))
        verification = sample.verify()
        assert [(f.case, f.kind) for f in verification.findings] == [
            ("case_1", "unreadable file"),
            ("case_3", "unexpected labels"),
        ]

    def test_a_format_nobody_reads(self, sample: Any) -> None:
        for file in sample.folder.glob("*Tr/*"):
            file.rename(str(file).removesuffix(".nii.gz") + ".xyz")
        sample.describe(file_ending=".xyz")
        verification = sample.verify()
        assert {f.case for f in verification.errors} == {"case_1", "case_2", "case_3"}
        assert "no installed reader" in verification.errors[0].found


class TestVoxels:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_non_finite(self, value: float, sample: Any) -> None:
        array = np.random.default_rng(0).normal(size=(8, 7, 6))
        array[1, 2, 3] = array[3, 2, 1] = value
        sample.write_image("case_2", 1, array)
        finding = only(sample.verify(), "non-finite voxels")
        assert (finding.case, finding.file) == ("case_2", sample.image("case_2", 1))
        assert ("2 NaN" in finding.found) == bool(np.isnan(value))
        assert ("2 infinite" in finding.found) == bool(np.isinf(value))
        assert "of 336 voxels" in finding.found

    def test_nan_and_infinity_that_cancel(self, sample: Any) -> None:
        array = np.ones((8, 7, 6))
        array[0, 0, 0], array[0, 0, 1] = np.inf, -np.inf
        sample.write_image("case_2", 1, array)
        assert "2 infinite" in only(sample.verify(), "non-finite voxels").found

    def test_huge_values_are_finite(self, sample: Any) -> None:
        array = np.full((8, 7, 6), 3e38)
        array[0] = 1
        sample.write_image("case_2", 1, array)
        assert sample.verify().findings == ()

    def test_a_constant_image(self, sample: Any) -> None:
        sample.write_image("case_2", 1, np.full((8, 7, 6), 5.0))
        assert "the value 5" in only(sample.verify(), "empty image", "warning").found


class TestGeometry:
    @pytest.mark.parametrize("which", ["channel", "label"])
    @pytest.mark.parametrize(
        ("what", "affine"),
        [
            ("spacing", np.diag([-1.5, -2.0, 3.1, 1.0])),
            ("origin", np.array([[-1.5, 0, 0, 4], [0, -2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])),
            ("direction", np.diag([1.5, -2.0, 3.0, 1.0])),
        ],
    )
    def test_differs(self, what: str, affine: Any, which: str, sample: Any) -> None:
        path = (
            sample.write_image("case_2", 1, affine=affine)
            if which == "channel"
            else sample.write_label("case_2", affine=affine)
        )
        finding = only(sample.verify(), f"{what} differs")
        assert (finding.case, finding.file) == ("case_2", path)
        assert str(sample.image("case_2", 0)) in finding.expected

    def test_all_of_it_differs(self, sample: Any) -> None:
        sample.write_label("case_2", np.ones((8, 7, 5), np.uint8), np.diag([1.0, 1, 1, 1]))
        kinds = {f.kind for f in sample.verify().errors}
        assert kinds >= {"shape differs", "spacing differs", "direction differs"}

    def test_shape(self, sample: Any) -> None:
        sample.write_label("case_2", np.ones((8, 7, 5), np.uint8))
        finding = only(sample.verify(), "shape differs")
        assert "(5, 7, 8)" in finding.found
        assert "(6, 7, 8)" in finding.expected

    def test_a_shift_of_a_hundredth_voxel_is_a_warning(self, sample: Any) -> None:
        affine = np.diag([-1.5, -2.0, 3.0, 1.0])
        affine[0, 3] = 0.02
        sample.write_label("case_2", affine=affine)
        only(sample.verify(), "origin differs", "warning")

    def test_rounding_is_nothing(self, sample: Any) -> None:
        affine = np.diag([-1.5, -2.0, 3.0, 1.0]) + 1e-7
        affine[3] = 0, 0, 0, 1
        sample.write_label("case_2", affine=affine)
        assert sample.verify().findings == ()

    def test_two_and_three_axes(self, sample: Any) -> None:
        flat = sitk.GetImageFromArray(np.ones((7, 8), np.float32))
        sitk.WriteImage(flat, str(sample.label("case_2")))
        assert {f.kind for f in sample.verify().errors} >= {"shape differs", "dimensions differs"}


class TestLabels:
    @pytest.mark.parametrize(
        ("value", "kind"),
        [(300, np.int16), (-1, np.int16), (1.5, np.float32), (np.nan, np.float32), (1e30, np.float64)],
    )
    def test_unexpected(self, value: float, kind: type, sample: Any) -> None:
        array = sample.labels().astype(kind)
        array[2, 3, 4] = value
        sample.write_label("case_3", array)
        finding = only(sample.verify(), "unexpected labels")
        assert (finding.case, finding.file) == ("case_3", sample.label("case_3"))
        assert finding.found == f"{value:g} (1 voxel)"
        assert "[0, 1, 2]" in finding.expected

    def test_many_unexpected_are_cut_short(self, sample: Any) -> None:
        sample.write_label("case_3", np.arange(336).reshape(8, 7, 6).astype(np.int16))
        assert only(sample.verify(), "unexpected labels").found.endswith("and 323 more values")

    def test_ignore_is_expected_and_no_foreground(self, sample: Any) -> None:
        sample.describe(labels={"background": 0, "organ": 1, "tumour": 2, "ignore": 3})
        array = sample.labels()
        array[array == 0] = 3
        sample.write_label("case_3", array)
        assert sample.verify().findings == ()
        sample.write_label("case_3", np.where(array > 2, array, 0).astype(np.uint8))
        assert only(sample.verify(), "no foreground", "warning").found == "only label 0, 3"

    def test_no_foreground_in_one_case(self, sample: Any) -> None:
        sample.write_label("case_3", np.zeros((8, 7, 6), np.uint8))
        assert only(sample.verify(), "no foreground", "warning").case == "case_3"

    def test_no_foreground_at_all(self, sample: Any) -> None:
        for case in ("case_1", "case_2", "case_3"):
            sample.write_label(case, np.zeros((8, 7, 6), np.uint8))
        verification = sample.verify()
        assert [f.found for f in verification.errors] == ["no foreground voxel in any case"]
        assert len(verification.warnings) == 3

    def test_a_label_nobody_uses(self, sample: Any) -> None:
        sample.describe(labels={"background": 0, "organ": 1, "tumour": 2, "vessel": 3})
        assert "3 (vessel)" in only(sample.verify(), "label never used", "warning").found

    def test_not_consecutive(self, sample: Any) -> None:
        sample.describe(labels={"background": 0, "organ": 1, "tumour": 3})
        kinds = {f.kind for f in sample.verify().errors}
        assert kinds == {"non-consecutive labels", "unexpected labels"}

    def test_colours(self, tmp_path: Path, project: Project) -> None:
        folder = png_data_set(tmp_path)
        PillowImage.fromarray(np.ones((7, 8, 3), np.uint8)).save(folder / "labelsTr/b.png")
        only(verify(project, folder), "label map with channels")


class TestCases:
    def test_missing_channel(self, sample: Any) -> None:
        sample.image("case_2", 1).unlink()
        finding = only(sample.verify(), "missing channel")
        assert finding.case == "case_2"
        assert "T1, T2" in finding.expected

    def test_missing_first_channel(self, sample: Any) -> None:
        sample.image("case_2", 0).unlink()
        assert only(sample.verify(), "missing channel").case == "case_2"

    def test_a_channel_too_many(self, sample: Any) -> None:
        sample.write_image("case_2", 2)
        assert only(sample.verify(), "too many channels").case == "case_2"

    def test_one_file_with_all_channels(self, sample: Any) -> None:
        array = np.random.default_rng(0).normal(size=(8, 7, 6, 2))
        sample.write_image("case_2", 0, array)
        sample.image("case_2", 1).unlink()
        assert sample.verify().findings == ()

    def test_missing_label_and_image(self, sample: Any) -> None:
        sample.label("case_1").unlink()
        for channel in (0, 1):
            sample.image("case_2", channel).unlink()
        assert [(f.case, f.kind, f.severity) for f in sample.verify().findings] == [
            ("", "number of cases", "error"),
            ("case_1", "missing label", "error"),
            ("case_2", "missing image", "warning"),
        ]

    def test_a_link_to_nothing(self, sample: Any) -> None:
        sample.image("case_2", 1).unlink()
        sample.image("case_2", 1).symlink_to("nowhere")
        assert only(sample.verify(), "unreadable file").found == "no such file"

    def test_a_reader_that_breaks_costs_its_file_alone(self, sample: Any) -> None:
        def breaks(paths: Any) -> Any:
            if paths[0].name == "case_2_0001.nii.gz":
                raise ZeroDivisionError("a mistake in a plugin")
            return read_simpleitk(paths)

        class Plugin:
            @hookimpl
            def segplug_readers(self) -> list[Component[Any]]:
                return [Component("breaks", breaks, "x")]

        sample.describe(overwrite_image_reader_writer="breaks")
        with open_project(workers=0) as project:
            project.kernel.register(Plugin(), "breaks")
            finding = only(verify(project, sample.folder), "unreadable file")
        assert finding.file == sample.image("case_2", 1)
        assert finding.found == "ZeroDivisionError: a mistake in a plugin"

    def test_a_copy_under_another_name(self, sample: Any) -> None:
        """Compressed differently: it is the voxels that count."""
        for channel in (0, 1):
            content = gzip.decompress(sample.image("case_1", channel).read_bytes())
            sample.image("case_9", channel).write_bytes(gzip.compress(content, 1))
        shutil.copy(sample.label("case_1"), sample.label("case_9"))
        sample.describe(numTraining=4)
        finding = only(sample.verify(), "duplicate case")
        assert finding.case == "case_9"
        assert "case case_1" in finding.found

    def test_the_same_image_with_another_label(self, sample: Any) -> None:
        for channel in (0, 1):
            shutil.copy(sample.image("case_1", channel), sample.image("case_2", channel))
        assert only(sample.verify(), "duplicate case", "warning").case == "case_2"

    def test_one_channel_in_common_is_no_duplicate(self, sample: Any) -> None:
        shutil.copy(sample.image("case_1", 0), sample.image("case_2", 0))
        assert sample.verify().findings == ()

    def test_blank_images_are_no_duplicates(self, sample: Any) -> None:
        """Slices cut from volumes are often blank; that is worth a word, but no mistake."""
        for case in ("case_1", "case_2"):
            for channel in (0, 1):
                sample.write_image(case, channel, np.zeros((8, 7, 6)))
            sample.write_label(case, np.zeros((8, 7, 6), np.uint8))
        verification = sample.verify()
        assert verification.ok
        assert {f.kind for f in verification.warnings} == {"empty image", "no foreground"}

    def test_one_name_with_two_endings(self, sample: Any) -> None:
        shutil.copy(sample.image("case_1"), sample.folder / "imagesTr/case_1_0000.nii")
        assert only(sample.verify(), "duplicate case").case == "case_1"

    @pytest.mark.parametrize("stated", [2, 4])
    def test_the_number_of_cases(self, stated: int, sample: Any) -> None:
        sample.describe(numTraining=stated)
        finding = only(sample.verify(), "number of cases")
        assert finding.found == f"numTraining {stated}"
        assert finding.expected.startswith("3,")

    def test_no_cases(self, sample: Any) -> None:
        for file in sample.folder.glob("*Tr/*"):
            file.unlink()
        only(sample.verify(), "no cases")


class TestDescription:
    def test_all_mistakes_at_once(self, sample: Any) -> None:
        sample.describe(channel_names={}, labels={"background": 0}, file_ending="nii.gz")
        verification = sample.verify()
        assert len(verification.errors) == 3
        assert all(f.file == sample.folder / "dataset.json" for f in verification.errors)
        with pytest.raises(DataError, match="3 problems"):
            verification.raise_errors()

    def test_broken_json(self, sample: Any) -> None:
        (sample.folder / "dataset.json").write_text("{labels")
        assert "no valid JSON" in only(sample.verify(), "dataset.json").found

    def test_a_reader_without_a_writer_is_a_warning(self, tmp_path: Path) -> None:
        class Plugin:
            @hookimpl
            def segplug_readers(self) -> list[Component[Any]]:
                return [Component("arrays", read_array, "x")]

        folder = tmp_path / "Dataset001_Arrays"
        for part, name in (("imagesTr", "case_0000.npy"), ("labelsTr", "case.npy")):
            (folder / part).mkdir(parents=True)
            np.save(folder / part / name, np.arange(64).reshape(4, 4, 4) % 2)
        described = {"channel_names": {"0": "x"}, "labels": {"background": 0, "one": 1}, "numTraining": 1}
        described |= {"file_ending": ".npy", "overwrite_image_reader_writer": "arrays"}
        (folder / "dataset.json").write_text(json.dumps(described))
        with open_project(workers=0) as project:
            project.kernel.register(Plugin(), "arrays")
            found = verify(project, folder)
        finding = only(found, "no writer", "warning")
        assert "reader 'arrays'" in finding.found
        assert "segplug_choose_writer" in finding.remedy

    def test_no_folder(self, tmp_path: Path, project: Project) -> None:
        only(verify(project, tmp_path / "nowhere"), "missing folder")

    def test_an_unknown_reader(self, sample: Any) -> None:
        sample.describe(overwrite_image_reader_writer="NiBabelIO")
        with pytest.raises(PluginError, match="Did you mean"):
            sample.verify()


def test_everything_at_once(sample: Any) -> None:
    sample.image("case_1", 0).write_bytes(sample.image("case_1", 0).read_bytes()[:-30])
    sample.write_image("case_1", 1, np.full((8, 7, 6), np.nan))
    sample.write_label("case_1", np.full((8, 7, 6), 9, np.uint8), np.diag([1.0, 1, 1, 1]))
    sample.image("case_2", 1).unlink()
    sample.label("case_3").unlink()
    sample.describe(numTraining=7)
    found = {(f.case, f.kind) for f in sample.verify().errors}
    assert found == {
        ("", "number of cases"),
        ("case_1", "unreadable file"),
        ("case_1", "non-finite voxels"),
        ("case_1", "unexpected labels"),
        ("case_1", "spacing differs"),
        ("case_1", "direction differs"),
        ("case_2", "missing channel"),
        ("case_3", "missing label"),
    }


def test_tiff_without_spacing_is_a_warning(tmp_path: Path, project: Project) -> None:
    folder = tmp_path / "Dataset002_Tiff"
    for name in ("imagesTr/a_0000.tif", "labelsTr/a.tif"):
        (folder / name).parent.mkdir(parents=True)
        tifffile.imwrite(
            folder / name, np.random.default_rng(0).integers(0, 2, (5, 6, 7)).astype(np.uint8), photometric="minisblack"
        )
    describe(folder, ".tif", 1)
    verification = verify(project, folder)
    assert verification.reader == "Tiff3DIO"
    assert [(f.kind, f.severity) for f in verification.findings] == [("no spacing", "warning")] * 2


def test_inspection_gives_the_arrays_to_whoever_reads_on(sample: Any) -> None:
    """Fingerprinting can go on from what verification read."""
    dataset = load_dataset(sample.folder)
    inspected = inspect_case(dataset.cases["case_1"], read_simpleitk, dataset.description)
    assert inspected.image is not None
    assert inspected.labels is not None
    np.testing.assert_array_equal(inspected.image.array, read_simpleitk(dataset.cases["case_1"].images).array)
    np.testing.assert_array_equal(inspected.labels.array, nibabel.load(sample.label("case_1")).get_fdata().transpose())
    assert sum(inspected.label_counts.values()) == 336


def test_a_worker_that_dies_costs_its_case_alone(sample: Any) -> None:
    class Fragile:
        def map(self, function: Any, items: Any) -> Any:
            for index, item in enumerate(items):
                dead = MemoryError("out of memory") if item.name == "case_2" else None
                yield Outcome(index, None if dead else function(item), dead)

        def close(self) -> None:
            pass

    class Plugin:
        @hookimpl
        def segplug_executors(self) -> list[Component[Any]]:
            return [Component("fragile", Fragile, "x")]

    kernel = Kernel()
    kernel.register(Plugin(), "fragile")
    with Project(Workspace(), kernel, executor="fragile") as project:
        finding = only(verify(project, sample.folder), "not checked")
    assert finding.case == "case_2"
    assert "out of memory" in finding.found


def test_workers_change_nothing(sample: Any) -> None:
    sample.image("case_2").write_bytes(b"")
    sample.write_label("case_1", np.zeros((8, 7, 6), np.uint8))
    with open_project(workers=2) as project:
        assert verify(project, sample.folder) == sample.verify()


@pytest.mark.parametrize("number", [4, 27, 28, 42, 120, 130])
def test_real_data_sets_are_sound(number: int, shared: Path) -> None:
    with open_project(shared / "datasets", workers=0) as project:
        assert [str(f) for f in verify(project, number).findings] == []


def png_data_set(tmp_path: Path) -> Path:
    folder = tmp_path / "Dataset003_Png"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    for case in "ab":
        pixels = np.random.default_rng(ord(case)).integers(0, 255, (7, 8)).astype(np.uint8)
        PillowImage.fromarray(pixels).save(folder / f"imagesTr/{case}_0000.png")
        PillowImage.fromarray(pixels // 128).save(folder / f"labelsTr/{case}.png")
    describe(folder, ".png", 2)
    return folder


def describe(folder: Path, ending: str, cases: int) -> None:
    raw = {
        "channel_names": {"0": "x"},
        "labels": {"background": 0, "y": 1},
        "numTraining": cases,
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(raw))


def test_a_header_that_contradicts_itself_is_a_warning(sample: Any, capfd: pytest.CaptureFixture[str]) -> None:
    for file in (sample.image("case_2"), sample.image("case_2", 1), sample.label("case_2")):
        image = nibabel.load(file)
        array = np.asanyarray(image.dataobj)
        image.header.set_qform(None, 0)
        image.header.set_sform(np.diag([-4.0, -4.0, 4.0, 1.0]), 1)
        content = nibabel.Nifti1Image(array, None, image.header).to_bytes()
        file.write_bytes(gzip.compress(content))
    verification = sample.verify()
    assert verification.ok
    assert {(f.case, f.kind, f.severity) for f in verification.findings} == {
        ("case_2", "spacing contradicts", "warning")
    }
    assert len(verification.findings) == 3
    assert "WARNING" not in capfd.readouterr().err
