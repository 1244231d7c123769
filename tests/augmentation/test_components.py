"""The augmentations as training uses them: found by name, pure, and each sample by its own parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segplug.errors import PluginError, UsageError
from segplug.kernel import Kernel
from segplug.model import ComponentRef
from segplug.protocols import Augmentation, AugmentationContext, Batch, Parameters
from segplug.runtime.randomness import generator
from segplug_builtin.augmentations.batchgenerators_chain import BatchgeneratorsAugmentation, known_transforms
from segplug_builtin.augmentations.nnunet import NNUNetAugmentation
from segplug_builtin.augmentations.none import NoAugmentation

KINDS: list[Callable[[AugmentationContext], Augmentation]] = [
    NNUNetAugmentation,
    BatchgeneratorsAugmentation,
    NoAugmentation,
]
PATCHES = [(14, 16, 12), (20, 18), (4, 18, 16)]


def make_batch(augmentation: Augmentation, parameters: Sequence[Parameters], channels: int = 2, seed: int = 0) -> Batch:
    size = [max(axis) for axis in zip(*map(augmentation.needed_size, parameters), strict=True)]
    random = np.random.default_rng(seed)
    data = random.normal(2, 3, size=(len(parameters), channels, *size)).astype(np.float32)
    maps = random.integers(-1, 4, size=(2, len(parameters), 1, *size)).astype(np.int16)
    cases = tuple(f"case_{i}" for i in range(len(parameters)))
    return Batch(torch.from_numpy(data), torch.from_numpy(maps[0]), cases, torch.from_numpy(maps[1]))


def draw(augmentation: Augmentation, count: int, seed: int = 0) -> list[Parameters]:
    return [augmentation.draw(generator(seed, sample)) for sample in range(count)]


def equal(first: Batch, second: Batch) -> bool:
    pairs = [(first.data, second.data), (first.target, second.target), (first.previous, second.previous)]
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


def sample_of(batch: Batch, sample: int) -> Batch:
    one = slice(sample, sample + 1)
    assert batch.previous is not None
    return Batch(batch.data[one], batch.target[one], batch.cases[one], batch.previous[one])


@pytest.mark.parametrize("name", ["nnunet", "batchgenerators", "none"])
def test_found_by_name(name: str) -> None:
    registry = Kernel().registry
    context = AugmentationContext((8, 8, 8), 1)
    built = registry.build("augmentations", ComponentRef(name), context=context)
    assert built.needed_size(built.draw(generator(0))) <= built.source_size()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("patch", PATCHES)
def test_pure(kind: Callable[[AugmentationContext], Augmentation], patch: tuple[int, ...]) -> None:
    augmentation = kind(AugmentationContext(patch, 2, (True, False)))
    parameters = draw(augmentation, 6)
    batch = make_batch(augmentation, parameters)
    kept = Batch(batch.data.clone(), batch.target.clone(), batch.cases, batch.previous.clone())
    state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, second = augmentation(batch, parameters), augmentation(batch, parameters)
    assert equal(first, second)
    assert equal(batch, kept)
    assert (np.random.get_state()[1] == state[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), state[1])
    assert first.cases == batch.cases
    assert first.data.shape == (6, 2, *patch)
    assert first.target.shape == first.previous.shape == (6, 1, *patch)
    assert (first.data.dtype, first.target.dtype, first.previous.dtype) == (torch.float32, torch.int16, torch.int16)
    assert first.target.min() == first.previous.min() == 0
    assert draw(augmentation, 6, seed=1) != parameters or kind is NoAugmentation


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(st.integers(0, 9999))
def test_samples_do_not_depend_on_their_batch(kind: Callable[[AugmentationContext], Augmentation], seed: int) -> None:
    patch = PATCHES[seed % len(PATCHES)]
    augmentation = kind(AugmentationContext(patch, 3, (False, True, False)))
    parameters = draw(augmentation, 4, seed)
    batch = make_batch(augmentation, parameters, 3, seed)
    together = augmentation(batch, parameters)
    for sample, drawn in enumerate(parameters):
        alone = augmentation(sample_of(batch, sample), [drawn])
        here = sample_of(together, sample)
        assert torch.allclose(here.data, alone.data, atol=1e-4)
        assert torch.equal(here.target, alone.target)


@pytest.mark.parametrize("kind", KINDS)
def test_validation_takes_the_patch_as_it_is(kind: Callable[[AugmentationContext], Augmentation]) -> None:
    augmentation = kind(AugmentationContext((6, 7, 8), 2, (True, True), validation=True))
    assert augmentation.source_size() == (6, 7, 8)
    parameters = draw(augmentation, 2)
    batch = make_batch(augmentation, parameters)
    done = augmentation(batch, parameters)
    assert torch.equal(done.data, batch.data)
    assert torch.equal(done.target, batch.target.clamp(min=0))


def test_every_effect_reaches_the_channels_it_was_drawn_for() -> None:
    augmentation = NNUNetAugmentation(AugmentationContext((10, 12, 14), 3))
    still: Parameters = {"needed": (10, 12, 14)}
    batch = make_batch(augmentation, [still] * 3, 3)
    per_channel = {"brightness": 1, "contrast": 1, "low_resolution": 1, "inverted_gamma": 1, "gamma": 1}
    for name, neutral in per_channel.items():
        values = np.array([0.8, neutral, 0.8])
        done = augmentation(batch, [still, {**still, name: values}, still])
        changed = (done.data != batch.data).flatten(2).any(2)
        assert changed.tolist() == [[False] * 3, [True, False, True], [False] * 3], name
        chosen = augmentation(batch, [{**still, name: values}, still, {**still, name: values[::-1].copy()}])
        assert torch.allclose(chosen.data[0], augmentation(sample_of(batch, 0), [{**still, name: values}]).data[0])
        assert torch.equal(chosen.data[1], batch.data[1])
    sigmas = np.array([[0, 0, 0], [0.9, 0.5, 0.6], [0, 0, 0]])
    done = augmentation(batch, [still, still, {**still, "blur": sigmas}])
    assert (done.data != batch.data).flatten(2).any(2).tolist() == [[False] * 3, [False] * 3, [False, True, False]]
    done = augmentation(batch, [still, {**still, "noise": (0.05, 3)}, still])
    assert (done.data != batch.data).flatten(2).any(2).tolist() == [[False] * 3, [True] * 3, [False] * 3]


def test_order_of_effects() -> None:
    augmentation = NNUNetAugmentation(AugmentationContext((9, 9, 9), 1))
    still: dict[str, Any] = {"needed": (9, 9, 9)}
    chain: list[dict[str, Any]] = [
        {"noise": (0.05, 3)},
        {"blur": np.array([[0.7, 0.8, 0.9]])},
        {"brightness": np.array([1.2])},
        {"contrast": np.array([0.8])},
        {"low_resolution": np.array([0.6])},
        {"inverted_gamma": np.array([1.3])},
        {"gamma": np.array([0.8])},
        {"mirror": (True, False, True)},
    ]
    batch = make_batch(augmentation, [still], 1)
    at_once = augmentation(batch, [{key: value for part in [still, *reversed(chain)] for key, value in part.items()}])
    for effect in chain:
        batch = replace(augmentation(batch, [{**still, **effect}]), previous=None)
    assert torch.allclose(batch.data, at_once.data, atol=1e-5)


def test_mirroring_takes_labels_along() -> None:
    augmentation = NNUNetAugmentation(AugmentationContext((5, 6, 7), 1))
    batch = make_batch(augmentation, [{}], 1)
    done = augmentation(batch, [{"mirror": (True, False, True)}])
    assert torch.equal(done.data, batch.data.flip(2, 4))
    assert torch.equal(done.target, batch.target.clamp(min=0).flip(2, 4))
    assert torch.equal(done.previous, batch.previous.clamp(min=0).flip(2, 4))
    assert augmentation.mirror_axes == (0, 1, 2)
    assert NNUNetAugmentation(AugmentationContext((5, 6, 7), 1), mirror=False).mirror_axes == ()


def test_masked_channels_are_0_outside_the_mask() -> None:
    augmentation = NNUNetAugmentation(AugmentationContext((8, 8, 8), 2, (False, True)))
    parameters = [{"needed": (8, 8, 8), "brightness": np.array([1.1, 1.2]), "noise": (0.1, 1)}]
    batch = make_batch(augmentation, parameters)
    done = augmentation(batch, parameters)
    outside = batch.target[0, 0] < 0
    assert (done.data[0, 1][outside] == 0).all()
    assert (done.data[0, 1][~outside] != 0).all()
    assert (done.data[0, 0][outside] != 0).all()


def test_labels_beyond_bytes() -> None:
    augmentation = NNUNetAugmentation(AugmentationContext((12, 12, 12), 1))
    parameters = [next(p for p in draw(augmentation, 50) if "affine" in p)]
    batch = make_batch(augmentation, parameters, 1)
    done = augmentation(batch, parameters)
    many = augmentation(
        replace(batch, target=torch.where(batch.target > 0, batch.target + 1000, batch.target)), parameters
    )
    assert torch.equal(torch.where(many.target > 0, many.target - 1000, 0), done.target)


@pytest.mark.gpu
@pytest.mark.parametrize("patch", PATCHES)
def test_on_a_gpu(patch: tuple[int, ...]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    augmentation = NNUNetAugmentation(AugmentationContext(patch, 2, (True, False)))
    parameters = [{k: v for k, v in drawn.items() if k != "noise"} for drawn in draw(augmentation, 24)]
    batch = make_batch(augmentation, parameters)
    here = augmentation(batch, parameters)
    there = augmentation(Batch(batch.data.cuda(), batch.target.cuda(), batch.cases, batch.previous.cuda()), parameters)
    assert torch.allclose(here.data, there.data.cpu(), atol=1e-3)
    assert (here.target != there.target.cpu()).float().mean() < 0.01


# --- chains of batchgenerators -----------------------------------------------------------------------------------


def test_a_chain_from_options() -> None:
    chain = [
        {"name": "BrightnessMultiplicativeTransform", "options": {"multiplier_range": [3, 3.0001], "p_per_sample": 1}},
        {"name": "MirrorTransform", "options": {"axes": [1]}},
    ]
    ref = ComponentRef("batchgenerators", {"transforms": chain})
    augmentation = Kernel().registry.build("augmentations", ref, context=AugmentationContext((6, 7, 8), 2))
    assert augmentation.source_size() == (6, 7, 8)
    assert augmentation.mirror_axes == (1,)
    parameters = draw(augmentation, 8)
    batch = make_batch(augmentation, parameters)
    done = augmentation(batch, parameters)
    mirrored = 0
    for before, after in zip(batch.data, done.data, strict=True):
        turned = not torch.allclose(after, before * 3, rtol=1e-3)
        assert torch.allclose(after, (before.flip(2) if turned else before) * 3, rtol=1e-3)
        mirrored += turned
    assert 0 < mirrored < 8


def test_the_default_chain_turns_slices_of_flat_patches() -> None:
    augmentation = BatchgeneratorsAugmentation(AugmentationContext((3, 20, 20), 1))
    assert augmentation.source_size() == (3, 23, 23)
    parameters = draw(augmentation, 40)
    batch = make_batch(augmentation, parameters, 1)
    batch = replace(batch, target=torch.arange(3, dtype=torch.int16).view(1, 1, 3, 1, 1).expand_as(batch.target))
    done = augmentation(batch, parameters)
    for target in done.target[:, 0]:  # slices keep their label, but for what came from outside and mirrored order
        assert all(len(set(each.unique().tolist()) - {0}) <= 1 for each in target)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "os.system"}, "has no 'os.system'"),
        ({"name": "GammaTransfrm"}, "did you mean 'GammaTransform'"),
        ({"options": {}}, "has no None"),
        ({"name": "GammaTransform", "options": {"strength": 1}}, "options of GammaTransform: .*'strength'"),
    ],
)
def test_chains_that_cannot_be(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BatchgeneratorsAugmentation(AugmentationContext((6, 7, 8), 1), [entry])


def test_a_chain_that_changes_the_size_is_an_error() -> None:
    chain = [{"name": "CenterCropTransform", "options": {"crop_size": [4, 4, 4]}}]
    augmentation = BatchgeneratorsAugmentation(AugmentationContext((6, 7, 8), 1), chain)
    parameters = draw(augmentation, 1)
    with pytest.raises(PluginError, match=r"made \(1, 4, 4, 4\) .* expected \(1, 6, 7, 8\)"):
        augmentation(make_batch(augmentation, parameters, 1), parameters)


def test_only_classes_of_the_library_can_be_named() -> None:
    known = known_transforms()
    assert {"SpatialTransform", "GammaTransform", "MirrorTransform"} <= set(known)
    assert all(kind.__module__.startswith("batchgenerators.transforms.") for kind in known.values())
