"""Images beyond the limit of memory: prepared part by part on the disk, with the result of the ordinary way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from segplug import Component, hookimpl
from segplug.errors import DataError
from segplug.kernel import Kernel
from segplug.model import ComponentRef, Geometry, Image, Labels
from segplug.protocols import PredictionSettings, Reader, Writer
from segplug.runtime.cropping import Box
from segplug.runtime.large_images import parts, prepare_on_disk
from segplug.runtime.prediction_memory import PredictionMemory
from segplug.runtime.preprocessing import preprocess_image
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.predict import predict_folder


class Opened:
    """Regions of an array."""

    def __init__(self, array: NDArray[np.float32], chunks: tuple[int, ...] = (4, 8, 8)) -> None:
        self.array, self.chunks, self.shape = array, chunks, array.shape
        self.geometry = Geometry((1.0, 1.0, 1.0))

    def read(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[np.float32]:
        return self.array[(slice(None), *map(slice, start, stop))].copy()


class NpyReader:
    """`.npy` files that are read whole or in part."""

    def __call__(self, paths: Sequence[Path]) -> Image:
        return Image(np.stack([np.load(path) for path in paths]).astype(np.float32), Geometry((1.0, 1.0, 1.0)))

    def open(self, paths: Sequence[Path]) -> Opened:
        return Opened(self(paths).array)


read_npy = NpyReader()


def write_npy(path: Path, labels: Labels) -> None:
    with path.open("wb") as file:
        np.save(file, labels.array)


class Npy:
    @hookimpl
    def segplug_readers(self) -> Iterator[Component[Reader]]:
        yield Component("npy", read_npy, "NumPy arrays")

    @hookimpl
    def segplug_writers(self) -> Iterator[Component[Writer]]:
        yield Component("npy", write_npy, "NumPy arrays")


def volume(shape: tuple[int, ...] = (1, 21, 40, 37), seed: int = 0) -> NDArray[np.float32]:
    array = np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)
    array[:, :3] = array[:, :, -2:] = array[..., :5] = 0
    return array


@given(st.data())
def test_parts_cover_a_box_once(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 20)] * 3))
    low = [data.draw(st.integers(0, n - 1)) for n in shape]
    box: Box = tuple((a, data.draw(st.integers(a + 1, n))) for a, n in zip(low, shape, strict=True))
    chunks = data.draw(st.tuples(*[st.integers(1, 25)] * 3))
    seen = np.zeros(shape, np.int8)
    for start, stop in parts(box, chunks, data.draw(st.sampled_from([1, 2**20, 2**22]))):
        seen[tuple(map(slice, start, stop))] += 1
    inside = tuple(slice(*side) for side in box)
    assert (seen[inside] == 1).all()
    assert seen.sum() == np.prod([b - a for a, b in box])


@pytest.mark.parametrize(
    "normalizer", ["ZScoreNormalization", "CTNormalization", "NoNormalization", "RescaleTo01Normalization"]
)
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_the_same_as_in_memory(recipe: Any, kernel: Kernel, normalizer: str, transpose: tuple[int, ...]) -> None:
    plan = replace(recipe, transpose=transpose, channels=2).plan()
    configuration = replace(plan.configurations["3d"], normalization=(ComponentRef(normalizer),) * 2)
    array = volume((2, 21, 40, 37))
    expected, _, properties = preprocess_image(
        Image(array.copy(), Geometry((1.0, 1.0, 1.0))), None, plan, configuration, kernel.registry
    )
    found, told = prepare_on_disk(Opened(array), plan, configuration, kernel.registry, None)
    assert told == properties
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "value", "told"),
    [
        ({"use_mask_for_norm": (True,)}, 1.0, "within the mask of nonzero voxels"),
        ({"spacing": (2.0, 1.0, 1.0)}, 1.0, "it is resampled from a spacing of"),
        ({}, np.nan, r"in the region from .* channel 0 has 1 values that are not finite"),
    ],
)
def test_what_needs_the_whole_image_is_told(
    recipe: Any, kernel: Kernel, change: dict[str, Any], value: float, told: str
) -> None:
    plan = recipe.plan()
    array = volume()
    array[0, 10, 10, 10] = value
    with pytest.raises(DataError, match=told):
        prepare_on_disk(Opened(array), plan, replace(plan.configurations["3d"], **change), kernel.registry, None)


@pytest.mark.parametrize("shape", [(21, 40, 37), (6, 12, 60)])
def test_predictions_are_those_of_the_ordinary_way(
    make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    kernel = Kernel(discover=False)
    kernel.register(Npy(), "npy")
    model = make_model(file_ending=".npy", reader="npy", mirror_axes=(0, 2))
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a_0000.npy", volume((1, *shape))[0])
    settings = PredictionSettings(device="cpu", precision="fp32")
    with Project(Workspace(), kernel, workers=0) as project:
        predict_folder(project, tmp_path / "in", tmp_path / "ordinary", model, settings=settings)
        asked = []
        monkeypatch.setattr(PredictionMemory, "has_room_for", lambda _, wanted: bool(asked.append(wanted)))
        limited = replace(settings, max_memory_gb=30)
        predict_folder(project, tmp_path / "in", tmp_path / "large", model, settings=limited)
    assert asked == [(1, *shape)]
    one, other = (np.load(tmp_path / folder / "a.npy") for folder in ("ordinary", "large"))
    assert len(np.unique(one)) > 1
    assert (one != other).mean() < 1e-3  # float64 against float32 statistics
