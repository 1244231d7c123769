"""Preprocessing, window and export together, with networks whose right answer is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from segplug.errors import DataError
from segplug.kernel import Kernel
from segplug.model import ComponentRef, Geometry, Image, Labels
from segplug.protocols import Pipeline, PredictionSettings
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.prediction_pipeline import PredictionPipeline, PreparedImage

KERNEL = Kernel(discover=False)
CPU = torch.device("cpu")
VALUES = (0, 1, 2)


def recognise(x: Tensor) -> Tensor:
    """Logits that are largest for the label whose number the voxel has."""
    return torch.cat([-((x[:, :1] - value) ** 2) for value in VALUES], 1)


def model_of(recipe: Any, normalization: str = "NoNormalization") -> Any:
    plan = recipe.plan()
    configuration = plan.configurations[recipe.configuration_name]
    configuration = replace(configuration, normalization=(ComponentRef(normalization),) * recipe.channels)
    dataset = parse_description(recipe.dataset_json, plan.dataset_name, Path("dataset.json"))
    return SimpleNamespace(
        plan=plan, configuration=configuration, dataset=dataset, mirror_axes=recipe.mirror_axes, folds=(0,)
    )


def pipeline_of(recipe: Any, **settings: Any) -> PredictionPipeline:
    return PredictionPipeline(KERNEL.registry, model_of(recipe), PredictionSettings(**settings))


def label_image(shape: tuple[int, ...], borders: list[tuple[int, int]], seed: int) -> NDArray[np.float32]:
    """Random labels with zeros around them."""
    labels = np.random.default_rng(seed).integers(0, 3, shape).astype(np.float32)
    inside = np.zeros(shape, bool)
    inside[tuple(slice(low, max(n - high, low)) for n, (low, high) in zip(shape, borders, strict=True))] = True
    return np.where(inside, labels, 0).astype(np.float32)


@given(
    shape=st.tuples(st.integers(1, 13), st.integers(1, 15), st.integers(1, 14)),
    borders=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=3),
    transpose=st.sampled_from(list(permutations(range(3)))),
    patch=st.one_of(
        st.tuples(st.integers(5, 8), st.integers(5, 9), st.integers(5, 7)),
        st.tuples(st.integers(5, 9), st.integers(5, 7)),
    ),
    mirror=st.booleans(),
    seed=st.integers(0, 100),
)
def test_what_the_network_sees_is_where_it_was(
    recipe: Any,
    shape: tuple[int, ...],
    borders: list[tuple[int, int]],
    transpose: tuple[int, ...],
    patch: tuple[int, ...],
    mirror: bool,
    seed: int,
) -> None:
    """Crop, transposition, padding, tiles and their undoing: any image of labels comes back voxel by voxel."""
    array = label_image(shape, borders, seed)
    axes = tuple(range(len(patch))) if mirror else ()
    made = replace(recipe, patch_size=patch, transpose=transpose, mirror_axes=axes)
    geometry = Geometry((1.0, 1.0, 1.0), (5.0, 6.0, 7.0))
    prediction = pipeline_of(made).run(Image(array[None], geometry), [recognise], CPU)
    np.testing.assert_array_equal(prediction.labels.array, array)
    assert prediction.labels.geometry is geometry
    assert prediction.probabilities is None


def test_resampling_there_and_back(recipe: Any) -> None:
    """Blocks larger than the resampling come back but for their rims."""
    array = np.kron(np.random.default_rng(0).integers(0, 3, (4, 4, 4)), np.ones((6, 6, 6))).astype(np.float32)
    made = replace(recipe, patch_size=(8, 8, 8), spacing=(1.5, 0.8, 1.0))
    prediction = pipeline_of(made).run(Image(array[None], Geometry((1.0, 1.0, 1.0))), [recognise], CPU)
    assert prediction.labels.shape == array.shape
    centres = tuple(np.ix_(*[np.arange(3, 24, 6)] * 3))
    np.testing.assert_array_equal(prediction.labels.array[centres], array[centres])


@pytest.mark.parametrize("order", [1, 3])
def test_splines_that_overshoot_are_resampled_whole(recipe: Any, order: int) -> None:
    """A plan may ask for cubic probabilities; the result is that of the resampler itself."""
    random = np.random.default_rng(0)
    array = np.kron(random.integers(0, 3, (3, 3, 3)), np.ones((4, 4, 4))).astype(np.float32)
    made = replace(recipe, patch_size=(16, 16, 16), spacing=(2.0, 1.0, 1.0), resample_order=order)
    pipeline = pipeline_of(made, save_probabilities=True)
    prepared = pipeline.prepare(Image(array[None], Geometry((1.0, 1.0, 1.0))))
    prediction = pipeline.run(prepared, [recognise], CPU)
    logits = recognise(torch.from_numpy(prepared.data)[None])[0].numpy()
    resampler = KERNEL.registry.build("resamplers", "separable")
    arguments = (array.shape, (2.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    resampled = torch.from_numpy(resampler(logits, *arguments, order=order, force_separate_z=None))
    inside = tuple(slice(*side) for side in prepared.properties["bbox_used_for_cropping"])
    assert array[inside].shape == array.shape
    np.testing.assert_array_equal(prediction.labels.array, resampled.argmax(0).numpy())
    np.testing.assert_allclose(prediction.probabilities, torch.softmax(resampled, 0).numpy(), atol=1e-5)  # type: ignore[arg-type]


def test_probabilities_are_those_of_the_labels(recipe: Any) -> None:
    array = label_image((9, 10, 11), [(1, 2), (0, 3), (2, 0)], 3)
    made = replace(recipe, transpose=(2, 0, 1))
    prediction = pipeline_of(made, save_probabilities=True).run(
        Image(array[None], Geometry((1.0, 1.0, 1.0))), [recognise], CPU
    )
    chances = prediction.probabilities
    assert chances is not None
    assert chances.shape == (3, *array.shape)
    np.testing.assert_array_equal(chances.argmax(0), array)
    np.testing.assert_allclose(chances.sum(0), 1, atol=1e-5)
    assert (chances[0][0] == 1).all()  # cropped away: certain background


def test_regions(recipe: Any) -> None:
    labels = (("background", 0), ("whole", (1, 2)), ("core", 2))
    made = replace(recipe, labels=labels, regions_class_order=(1, 2))
    array = label_image((6, 7, 8), [(0, 0)] * 3, 1)

    def overlapping(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1] - 0.5, x[:, :1] - 1.5], 1)

    prediction = pipeline_of(made, save_probabilities=True).run(
        Image(array[None], Geometry((1.0, 1.0, 1.0))), [overlapping], CPU
    )
    np.testing.assert_array_equal(prediction.labels.array, array)
    assert prediction.probabilities is not None
    assert ((prediction.probabilities[1] > 0.5) == (array == 2)).all()
    assert made.dataset_json["labels"]["whole"] == [1, 2]


def test_preprocessing_ahead_changes_nothing(recipe: Any) -> None:
    image = Image(label_image((9, 10, 11), [(1, 2)] * 3, 3)[None], Geometry((1.5, 1.0, 1.0)))
    pipeline = pipeline_of(recipe)
    prepared = pipeline.prepare(image)
    assert isinstance(prepared, PreparedImage)
    assert isinstance(prepared, Image)  # engines that know nothing of it see the raw image
    assert prepared.array is image.array
    np.testing.assert_array_equal(
        pipeline.run(prepared, [recognise], CPU).labels.array, pipeline.run(image, [recognise], CPU).labels.array
    )


def test_folds_are_averaged_as_logits(recipe: Any) -> None:
    image = Image(np.ones((1, 6, 6, 6), np.float32), Geometry((1.0, 1.0, 1.0)))

    def constant(*logits: float) -> Any:
        return lambda x: torch.tensor(logits)[None, :, None, None, None].expand(1, -1, *x.shape[2:])

    folds = [constant(0, 3, 0), constant(0, 0, 2), constant(0, 0, 2)]
    prediction = pipeline_of(recipe, save_probabilities=True).run(image, folds, CPU)
    assert (prediction.labels.array == 2).all()
    wanted = torch.softmax(torch.tensor([0, 1, 4 / 3]), 0)
    np.testing.assert_allclose(prediction.probabilities[:, 3, 3, 3], wanted, atol=1e-6)  # type: ignore[index]


def test_a_cascade_gets_the_labels_of_the_previous_stage(recipe: Any) -> None:
    made = replace(recipe, previous_stage="3d_lowres", spacing=(1.0, 1.0, 1.0))
    array = np.ones((1, 8, 8, 8), np.float32)
    array[:, 0] = 0
    previous = Labels(np.random.default_rng(0).integers(0, 3, (8, 8, 8)), Geometry((1.0, 1.0, 1.0)))
    image = Image(array, Geometry((1.0, 1.0, 1.0)))
    pipeline = pipeline_of(made)
    prepared = pipeline.prepare(image, previous)
    assert prepared.data.shape == (3, 7, 8, 8)
    for label in (1, 2):
        np.testing.assert_array_equal(prepared.data[label], previous.array[1:] == label)
    found = pipeline.run(image, [lambda x: torch.cat([0.5 + 0 * x[:, :1], x[:, 1:]], 1)], CPU, previous)
    np.testing.assert_array_equal(found.labels.array[1:], previous.array[1:])
    with pytest.raises(DataError, match="needs the prediction of 3d_lowres"):
        pipeline.run(image, [recognise], CPU)


def test_bad_images_are_named(recipe: Any) -> None:
    pipeline = pipeline_of(recipe)
    geometry = Geometry((1.0, 1.0, 1.0))
    with pytest.raises(DataError, match="2 channels"):
        pipeline.run(Image(np.ones((2, 5, 5, 5), np.float32), geometry), [recognise], CPU)
    array = np.ones((1, 5, 5, 5), np.float32)
    array[0, 1, 2, 3] = np.nan
    with pytest.raises(DataError, match=r"not finite.*\(1, 2, 3\)"):
        pipeline.run(Image(array, geometry), [recognise], CPU)


def test_an_empty_image_is_background(recipe: Any) -> None:
    image = Image(np.zeros((1, 5, 6, 7), np.float32), Geometry((1.0, 1.0, 1.0)))
    prediction = pipeline_of(recipe).run(image, [recognise], CPU)
    assert prediction.labels.shape == (5, 6, 7)
    assert not prediction.labels.array.any()


def test_the_pipeline_is_what_predictors_are_promised(recipe: Any) -> None:
    pipeline: Pipeline = pipeline_of(recipe)
    assert callable(pipeline.run)
