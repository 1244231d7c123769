"""Predicting folders: what is written, what is kept, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from segplug import Component, hookimpl
from segplug.errors import DataError, UsageError
from segplug.kernel import Kernel
from segplug.model import Prediction
from segplug.protocols import PredictionSettings
from segplug.runtime.files import PARTIAL
from segplug.runtime.folder_lock import working_in
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.predict import predict_folder, predict_images
from segplug_builtin.predictors import TorchPredictor
from segplug_builtin.readers import read_simpleitk

Make = Callable[..., Path]
FP32 = PredictionSettings(precision="fp32")


@pytest.fixture
def images(tmp_path: Path, make_image: Make) -> Path:
    for number, shape in enumerate([(9, 20, 18), (12, 17, 23), (5, 14, 16)]):
        make_image(tmp_path / "in" / f"case_{number}_0000.nii.gz", shape, seed=number, spacing=(1.2, 1.0, 0.9))
    return tmp_path / "in"


def label_maps(folder: Path) -> dict[str, Any]:
    files = [p for p in sorted(folder.glob("*.nii.gz")) if not p.name.startswith(PARTIAL)]
    return {p.name: sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in files}


def test_label_maps_with_the_geometry_of_the_images(
    project: Project, make_model: Make, images: Path, tmp_path: Path
) -> None:
    model, out = make_model(mirror_axes=(0, 1), transpose=(1, 0, 2)), tmp_path / "out"
    result = predict_folder(project, images, out, model, settings=FP32)
    assert result.predicted == ("case_0", "case_1", "case_2")
    assert result.kept == ()
    for number in range(3):
        image = sitk.ReadImage(str(images / f"case_{number}_0000.nii.gz"))
        labels = sitk.ReadImage(str(out / f"case_{number}.nii.gz"))
        assert labels.GetSize() == image.GetSize()
        for part in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(labels, part)(), getattr(image, part)(), rtol=0, atol=1e-6)
        assert set(np.unique(sitk.GetArrayFromImage(labels))) <= {0, 1, 2}
    assert json.loads((out / "dataset.json").read_text()) == json.loads((model / "dataset.json").read_text())
    assert json.loads((out / "plans.json").read_text()) == json.loads((model / "plans.json").read_text())
    arguments = json.loads((out / "predict_from_raw_data_args.json").read_text())
    assert arguments["list_of_lists_or_source_folder"] == str(images)
    assert arguments["segplug"]["folds"] == [0]
    assert {entry["kind"] for entry in arguments["segplug"]["provenance"]} >= {"architectures", "readers", "predictors"}


def test_arrays_in_memory_give_the_same(project: Project, make_model: Make, images: Path, tmp_path: Path) -> None:
    model = make_model(folds=(0, 1))
    predict_folder(project, images, tmp_path / "out", model, settings=FP32)
    files = sorted(images.iterdir())
    predictions = predict_images(project, (read_simpleitk([f]) for f in files), model, settings=FP32)
    for prediction, array in zip(predictions, label_maps(tmp_path / "out").values(), strict=True):
        np.testing.assert_array_equal(prediction.labels.array, array)


def test_workers_change_nothing(make_model: Make, images: Path, tmp_path: Path) -> None:
    model = make_model()
    for workers in (0, 2):
        with Project(Workspace(), Kernel(discover=False), workers=workers) as project:
            predict_folder(project, images, tmp_path / str(workers), model, settings=FP32)
    limited = PredictionSettings(precision="fp32", max_memory_gb=4)
    with Project(Workspace(), Kernel(discover=False), workers=2) as project:
        predict_folder(project, images, tmp_path / "limited", model, settings=limited)
    first, *others = (label_maps(tmp_path / name) for name in ("0", "2", "limited"))
    for other in others:
        assert first.keys() == other.keys()
        assert all(np.array_equal(first[name], other[name]) for name in first)


def test_probabilities(project: Project, make_model: Make, images: Path, tmp_path: Path) -> None:
    settings = PredictionSettings(precision="fp32", save_probabilities=True)
    predict_folder(project, images, tmp_path / "out", make_model(), settings=settings)
    for name, labels in label_maps(tmp_path / "out").items():
        with np.load(tmp_path / "out" / name.replace(".nii.gz", ".npz")) as file:
            chances = file["probabilities"]
        assert chances.shape == (3, *labels.shape)
        np.testing.assert_array_equal(chances.argmax(0), labels)
    assert not [p for p in (tmp_path / "out").rglob("*") if PARTIAL in p.name]


def test_bad_cases_are_named_and_the_good_ones_written(
    project: Project, make_model: Make, images: Path, tmp_path: Path
) -> None:
    whole = (images / "case_1_0000.nii.gz").read_bytes()
    (images / "case_1_0000.nii.gz").write_bytes(whole[: len(whole) // 2])
    (images / "case_3_0001.nii.gz").write_bytes(whole)
    nan = np.ones((4, 5, 6), np.float32)
    nan[1, 2, 3] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(nan), str(images / "case_4_0000.nii.gz"))
    with pytest.raises(DataError) as error:
        predict_folder(project, images, tmp_path / "out", make_model(), settings=FP32)
    lines = str(error.value).splitlines()
    assert "3 of 5 cases not predicted" in lines[0]
    assert any("case_1: " in line and "case_1_0000.nii.gz" in line and "truncated" in line for line in lines)
    assert any("case_3" in line and "channel" in line for line in lines)
    assert any("case_4: " in line and "case_4_0000.nii.gz: " in line and "not finite" in line for line in lines)
    assert set(label_maps(tmp_path / "out")) == {"case_0.nii.gz", "case_2.nii.gz"}


def test_infinite_weights_give_an_error_and_no_mask(
    project: Project, make_model: Make, images: Path, tmp_path: Path
) -> None:
    model = make_model()
    path = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["network_weights"]["decoder.seg_layers.0.bias"][1] = float("nan")
    torch.save(checkpoint, path)
    with pytest.raises(DataError, match=r"3 of 3 cases not predicted(.|\n)*case_0: .*not finite"):
        predict_folder(project, images, tmp_path / "out", model, settings=FP32)
    assert label_maps(tmp_path / "out") == {}


def test_continue_keeps_what_is_whole_and_redoes_the_rest(
    project: Project, make_model: Make, make_image: Make, images: Path, tmp_path: Path
) -> None:
    model, out = make_model(), tmp_path / "out"

    def again(**changes: Any) -> tuple[str, ...]:
        options: dict[str, Any] = {"settings": FP32, "continue_": True, "model": model, **changes}
        return predict_folder(project, images, out, **options).predicted

    assert again() == ("case_0", "case_1", "case_2")
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")}
    assert again() == ()
    assert {p.name: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")} == before
    whole = (out / "case_0.nii.gz").read_bytes()
    (out / "case_0.nii.gz").write_bytes(whole[:50])  # truncated by someone
    (out / "case_1.nii.gz").unlink()
    assert again() == ("case_0", "case_1")
    assert (out / "case_0.nii.gz").read_bytes() == whole
    (out / ".segplug" / "case_2.json").write_text("{")  # without a manifest a file does not count
    assert again() == ("case_2",)
    make_image(images / "case_1_0000.nii.gz", (9, 9, 12), seed=9)  # another image
    assert again() == ("case_1",)
    assert again(settings=PredictionSettings(precision="fp32", step_size=0.7)) == ("case_0", "case_1", "case_2")
    assert again(model=make_model("other", folds=(0, 1))) == ("case_0", "case_1", "case_2")
    (out / "case_9.nii.gz").write_bytes(b"not ours")
    make_image(images / "case_9_0000.nii.gz", (9, 9, 12))
    assert again(model=tmp_path / "other") == ("case_9",)  # a file alone is no prediction


def test_what_failed_leaves_no_result_of_an_earlier_run(
    project: Project, make_model: Make, images: Path, tmp_path: Path
) -> None:
    predict_folder(project, images, tmp_path / "out", make_model(), settings=FP32)
    (images / "case_1_0000.nii.gz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="1 of 3 cases"):
        predict_folder(project, images, tmp_path / "out", tmp_path / "model", settings=FP32)
    assert set(label_maps(tmp_path / "out")) == {"case_0.nii.gz", "case_2.nii.gz"}


def test_a_disk_that_cannot_be_written_is_named(
    project: Project, make_model: Make, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "case_1.nii.gz").mkdir(parents=True)  # nothing can be renamed over a folder
    with pytest.raises(DataError, match=r"case_1: .*case_1\.nii\.gz: cannot be written"):
        predict_folder(project, images, tmp_path / "out", make_model(), settings=FP32)
    assert (tmp_path / "out" / "case_2.nii.gz").is_file()


def test_wrong_folders(project: Project, make_model: Make, images: Path, tmp_path: Path) -> None:
    model = make_model()
    with pytest.raises(UsageError, match="cannot share a folder"):
        predict_folder(project, images, images, model)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no images; expected files named CASE_0000\.nii\.gz"):
        predict_folder(project, tmp_path / "empty", tmp_path / "out", model)
    with pytest.raises(UsageError, match=r"case_0_0000\.nii\.gz: a file; expected its folder"):
        predict_folder(project, images / "case_0_0000.nii.gz", tmp_path / "out", model)
    with pytest.raises(UsageError, match="missing: no such folder"):
        predict_folder(project, tmp_path / "missing", tmp_path / "out", model)
    assert not (tmp_path / "out").exists()


def test_a_cascade_needs_the_stage_before(project: Project, make_model: Make, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"whose model is not at .*3d_lowres\. .*--previous-stage"):
        predict_folder(project, images, tmp_path / "out", make_model(previous_stage="3d_lowres"))


class Listener:
    def __init__(self) -> None:
        self.cases: list[tuple[str, Path | None]] = []
        self.steps: list[tuple[int, int]] = []

    @hookimpl
    def segplug_case_predicted(self, case: str, prediction: Prediction, path: Path | None) -> None:
        assert prediction.labels.array.ndim == 3
        assert path is None or path.is_file()
        self.cases.append((case, path))

    @hookimpl
    def segplug_stage_progress(self, stage: str, done: int, total: int) -> None:
        assert stage == "predict"
        self.steps.append((done, total))


def test_events(project: Project, make_model: Make, images: Path, tmp_path: Path) -> None:
    listener, model = Listener(), make_model()
    project.kernel.register(listener, "listener")
    predict_folder(project, images, tmp_path / "out", model, settings=FP32)
    assert listener.cases == [(f"case_{i}", tmp_path / "out" / f"case_{i}.nii.gz") for i in range(3)]
    assert listener.steps == [(1, 3), (2, 3), (3, 3)]
    list(predict_images(project, [read_simpleitk([images / "case_0_0000.nii.gz"])], model, settings=FP32))
    assert listener.cases[-1] == ("image 0", None)


class Upside:
    """An engine of a stranger: it brings only its own forward function."""

    def __init__(self, model: Any, pipeline: Any, add: float = 0.0) -> None:
        self.pipeline = pipeline
        self.add = add

    def predict(self, image: Any, previous: Any = None) -> Prediction:
        def forward(x: torch.Tensor) -> torch.Tensor:
            return torch.cat([0 * x, x, 0 * x + self.add - 1], 1)

        found: Prediction = self.pipeline.run(image, [forward], torch.device("cpu"), previous)
        return found


class Plugin:
    @hookimpl
    def segplug_predictors(self) -> Iterable[Component[Any]]:
        yield Component("upside", Upside, "")


def test_an_engine_from_a_plugin(project: Project, make_model: Make, make_image: Make, tmp_path: Path) -> None:
    project.kernel.register(Plugin(), "test")
    path = make_image(tmp_path / "in" / "case_0000.nii.gz", (9, 12, 14))
    predict_folder(project, tmp_path / "in", tmp_path / "out", make_model(), predictor="upside")
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[1:, 2:]
    labels = label_maps(tmp_path / "out")["case.nii.gz"][1:, 2:]
    np.testing.assert_array_equal(labels == 1, image > image.mean())


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), torch.OutOfMemoryError("CUDA")],
)
def test_a_case_too_large_for_the_memory_is_one_bad_case(
    project: Project, make_model: Make, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    predict = TorchPredictor.predict

    def limited(self: TorchPredictor, image: Any, previous: Any = None) -> Prediction:
        if image.shape == (12, 17, 23):
            raise error
        return predict(self, image, previous)

    monkeypatch.setattr(TorchPredictor, "predict", limited)
    with pytest.raises(DataError, match=r"1 of 3 cases not predicted(.|\n)*case_1: memory ran out"):
        predict_folder(project, images, tmp_path / "out", make_model(), settings=FP32)
    assert set(label_maps(tmp_path / "out")) == {"case_0.nii.gz", "case_2.nii.gz"}


def test_probabilities_do_not_outlive_their_labels(
    project: Project, make_model: Make, images: Path, tmp_path: Path
) -> None:
    with_probabilities = PredictionSettings(precision="fp32", save_probabilities=True)
    predict_folder(project, images, tmp_path / "out", make_model(), settings=with_probabilities)
    (tmp_path / "out" / "other.npz").write_bytes(b"not ours")
    predict_folder(project, images, tmp_path / "out", make_model("other", folds=(1,)), settings=FP32)
    assert [path.name for path in (tmp_path / "out").glob("*.npz")] == ["other.npz"]


def test_2d_models_predict_volumes(project: Project, make_model: Make, images: Path, tmp_path: Path) -> None:
    """Slices taken together give what they give one by one."""
    model = make_model(patch_size=(16, 12), mirror_axes=(0, 1))
    predict_folder(project, images, tmp_path / "out", model, settings=FP32)
    one_by_one = PredictionSettings(precision="fp32", max_memory_gb=4)
    predict_folder(project, images, tmp_path / "single", model, settings=one_by_one)
    for name, array in label_maps(tmp_path / "out").items():
        other = label_maps(tmp_path / "single")[name]
        assert np.mean(array == other) > 0.9999


def test_other_formats(project: Project, make_model: Make, tmp_path: Path) -> None:
    from PIL import Image as PillowImage

    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (30, 41), np.uint8)
    PillowImage.fromarray(pixels).save(tmp_path / "in" / "photo_0000.png")
    model = make_model(patch_size=(16, 16), file_ending=".png", reader="NaturalImage2DIO", transpose=(0, 2, 1))
    predict_folder(project, tmp_path / "in", tmp_path / "out", model, settings=FP32)
    with PillowImage.open(tmp_path / "out" / "photo.png") as labels:
        assert labels.size == (41, 30)
    assert isinstance(TorchPredictor, type)


KILLED = """
import sys
from pathlib import Path
from segplug.kernel import Kernel
from segplug.protocols import PredictionSettings
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.predict import predict_folder

source, target, model = map(Path, sys.argv[1:])
with Project(Workspace(), Kernel(discover=False), workers=1) as project:
    settings = PredictionSettings(precision="fp32", save_probabilities=True)
    predict_folder(project, source, target, model, settings=settings, continue_=True)
"""


def test_killed_and_called_again_finishes_the_work(
    project: Project, make_model: Make, make_image: Make, tmp_path: Path
) -> None:
    for number in range(12):
        make_image(tmp_path / "in" / f"case_{number:02d}_0000.nii.gz", (12, 30, 30), seed=number)
    model, out = make_model(), tmp_path / "out"
    settings = PredictionSettings(precision="fp32", save_probabilities=True)
    predict_folder(project, tmp_path / "in", tmp_path / "whole", model, settings=settings)
    for wanted in (1, 5):
        process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "in", out, model])
        while len(list(out.glob("case*.nii.gz"))) < wanted and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    for name, labels in label_maps(out).items():  # a file with its final name is whole, whenever it was killed
        np.testing.assert_array_equal(labels, label_maps(tmp_path / "whole")[name])
    result = predict_folder(project, tmp_path / "in", out, model, settings=settings, continue_=True)
    assert len(result.kept) >= 3
    assert len(result.kept) + len(result.predicted) == 12
    for name in os.listdir(tmp_path / "whole"):
        if name.startswith("case"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() or name.endswith(".npz")
    assert not [p for p in out.rglob("*") if p.name.startswith(PARTIAL)]
    shutil.rmtree(out)


def test_one_run_at_a_time_writes_to_a_folder(project: Project, make_model: Make, images: Path, tmp_path: Path) -> None:
    with working_in(tmp_path / "out"), pytest.raises(UsageError, match="another run is writing here"):
        predict_folder(project, images, tmp_path / "out", make_model())
    assert label_maps(tmp_path / "out") == {}
