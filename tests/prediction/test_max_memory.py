"""`--max-memory`: the same results within the number, or a refusal before the work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segplug.errors import DataError, UsageError
from segplug.kernel import Kernel
from segplug.model import Geometry, Image
from segplug.protocols import PredictionSettings
from segplug.runtime import memory_limit, prediction_memory
from segplug.runtime.memory_limit import MemoryLimit
from segplug.runtime.prediction_memory import PredictionMemory
from segplug.runtime.preprocessing import Preprocessing
from segplug.runtime.process_tree import UsageMeter
from segplug.runtime.project import Project
from segplug.runtime.sliding_window import Sums, Window, slide, sums_in_memory
from segplug.stages.predict import predict_folder

CPU = torch.device("cpu")
Make = Callable[..., Path]


def some_logits(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[:, 0], x[:, 0] ** 2, -x[:, 0]], 1)


def slid(data: torch.Tensor, window: Window, sums_in: Callable[[Sequence[int], torch.device], Sums]) -> torch.Tensor:
    slabs = slide(data, [some_logits], window, classes=3, device=CPU, mirror_axes=(0,), sums_in=sums_in)
    return torch.cat([slab.logits.clone() for slab in slabs], 1)


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 12), st.integers(1, 12)),
    patch=st.one_of(
        st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)),
        st.tuples(st.integers(1, 8), st.integers(1, 8)),
    ),
    step=st.sampled_from([0.3, 0.5, 1.0]),
    rows=st.integers(1, 9),
    classes=st.integers(1, 4),
)
def test_sums_on_disk_are_those_in_memory(
    shape: tuple[int, ...], patch: tuple[int, ...], step: float, rows: int, classes: int
) -> None:
    data = torch.from_numpy(np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32))
    window = Window.plan(shape, patch, step)
    on_disk = partial(prediction_memory._sums_on_disk, folder=None, rows=rows, classes=classes)
    assert torch.equal(slid(data, window, on_disk), slid(data, window, sums_in_memory))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 0.0])
def test_numbers_that_are_none(project: Project, make_model: Make, number: float, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UsageError, match="--max-memory"):
        predict_folder(
            project,
            tmp_path / "in",
            tmp_path / "out",
            make_model(),
            settings=PredictionSettings(device="cpu", max_memory_gb=number),
        )


def test_what_no_image_fits_in_is_refused_before_one_is_read(
    project: Project, make_model: Make, make_image: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_image(tmp_path / "in" / "case_0000.nii.gz", (9, 20, 20))
    monkeypatch.setattr("segplug.runtime.prediction_cases.read_image", lambda *_: pytest.fail("an image was read"))
    limited = PredictionSettings(device="cpu", max_memory_gb=0.01)
    with pytest.raises(UsageError, match=r"--max-memory 0.01: .* alone takes more; give at least \d"):
        predict_folder(project, tmp_path / "in", tmp_path / "out", make_model(), settings=limited)
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there_is_refused_before_an_image_is_read(
    project: Project, make_model: Make, make_image: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    make_image(tmp_path / "in" / "case_0000.nii.gz", (9, 20, 20))
    monkeypatch.setattr("segplug.runtime.prediction_cases.read_image", lambda *_: pytest.fail("an image was read"))
    with pytest.raises(UsageError, match="--device cuda"):
        predict_folder(
            project, tmp_path / "in", tmp_path / "out", make_model(), settings=PredictionSettings(device="cuda")
        )


class Left(MemoryLimit):
    """A limit that leaves a given number of bytes, whatever is in use."""

    def __init__(self, count: float) -> None:
        super().__init__(1.0)
        self.count = count

    def left(self) -> float:
        return self.count


def test_one_image_too_large_is_one_bad_case(
    project: Project, make_model: Make, make_image: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The limit is what is in use and a quarter of a GB: enough for the small image."""
    make_image(tmp_path / "in" / "small_0000.nii.gz", (9, 20, 20))
    make_image(tmp_path / "in" / "tall_0000.nii.gz", (300, 20, 20))
    model = make_model(spacing=(0.01, 1.0, 1.0))  # 30000 slices after resampling
    monkeypatch.setattr(memory_limit, "used_memory", lambda: 10**9)
    monkeypatch.setattr(prediction_memory, "memory_taken_by", lambda work: 10**7)
    settings = PredictionSettings(device="cpu", precision="fp32", max_memory_gb=1.12)
    with pytest.raises(DataError, match=r"1 of 2 cases .*\n.*tall: .*--max-memory 1.12 leaves 0.12; give at least"):
        predict_folder(project, tmp_path / "in", tmp_path / "out", model, settings=settings)
    assert (tmp_path / "out" / "small.nii.gz").is_file()
    assert not (tmp_path / "out" / "tall.nii.gz").exists()


def test_memory_is_used_while_there_is_enough(recipe: Any, tmp_path: Path) -> None:
    from segplug.runtime.dataset_json import parse_description
    from segplug.runtime.streamed_export import Placement

    labels = parse_description(recipe.dataset_json, "Dataset001_Test", tmp_path / "dataset.json").labels
    window = Window.plan((1024, 512, 512), (32, 32, 32), 0.5)
    placement = Placement.whole((1024, 512, 512))
    in_memory = 3 * 32 * 512 * 512 * 4

    def sums(left: float) -> Any:
        memory = PredictionMemory(Left(left), tmp_path)
        memory._patch = 0
        memory.choose_sums(window, placement, labels, streamed=True)
        return memory.sums

    plenty = in_memory + 1024 * 512 * 512 + 8 * 3 * 512 * 512 * 4 + prediction_memory.SLACK
    assert sums(plenty).func is prediction_memory._sums_by_rows
    assert sums(plenty - 1).func is prediction_memory._sums_on_disk
    with pytest.raises(DataError, match="predicting"):
        sums(plenty - in_memory)


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
def test_images_that_are_written_over_become_the_same(
    recipe: Any, transpose: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    from dataclasses import replace

    changed = replace(recipe, transpose=transpose, spacing=spacing, channels=2)
    plan = changed.plan()
    steps = Preprocessing.of(plan, plan.configurations[changed.configuration_name], Kernel(discover=False).registry)
    array = np.random.default_rng(0).normal(100, 20, (2, 9, 10, 11)).astype(np.float32)
    kept = steps.finish(steps.crop(Image(array, Geometry((1.0, 1.0, 1.0))), None))
    again = steps.finish(steps.crop(Image(array.copy(), Geometry((1.0, 1.0, 1.0))), None), consumed=True)
    assert np.array_equal(kept[0], again[0])
    assert kept[2] == again[2]
    assert np.array_equal(array, np.random.default_rng(0).normal(100, 20, (2, 9, 10, 11)).astype(np.float32))


def predicted(source: Path, out: Path, model: Path, *options: str) -> tuple[NDArray[Any], float]:
    """The label map, and the most memory that the process tree had, in GB."""
    program = "from segplug.cli.main import main; main()"
    options = ("--device", "cpu", "--precision", "fp32", "--no-mirroring", "--step-size", "1", *options)
    command = [sys.executable, "-c", program, "predict", "-i", str(source), "-o", str(out), "-m", str(model), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with UsageMeter(process.pid) as meter:
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    return sitk.GetArrayFromImage(sitk.ReadImage(str(out / "case.nii.gz"))), meter.usage.peak_memory / 1e9


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_process_tree_stays_below(make_model: Make, make_image: Make, tmp_path: Path) -> None:
    """Forty classes of 64 x 200 x 200 are 0.41 GB of sums, for which 0.68 GB have no room."""
    labels = (("background", 0), *((f"l{i}", i) for i in range(1, 40)))
    model = make_model(patch_size=(64, 32, 32), features=2, labels=labels)
    make_image(tmp_path / "in" / "case_0000.nii.gz", (200, 200, 200))
    unlimited, most = predicted(tmp_path / "in", tmp_path / "unlimited", model)
    limited, peak = predicted(tmp_path / "in", tmp_path / "limited", model, "--max-memory", "0.68")
    assert peak < 0.68 < most
    assert np.array_equal(limited, unlimited)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_probabilities_stay_on_disk(make_model: Make, make_image: Make, tmp_path: Path) -> None:
    """Forty classes of 112^3 are 0.22 GB of probabilities."""
    labels = (("background", 0), *((f"l{i}", i) for i in range(1, 40)))
    model = make_model(patch_size=(16, 32, 32), features=2, labels=labels)
    make_image(tmp_path / "in" / "case_0000.nii.gz", (112, 112, 112))
    _, plain = predicted(tmp_path / "in", tmp_path / "plain", model, "--max-memory", "0.8")
    _, peak = predicted(tmp_path / "in", tmp_path / "probable", model, "--max-memory", "0.8", "--save-probabilities")
    assert peak < 0.8
    assert peak < plain + 0.12
