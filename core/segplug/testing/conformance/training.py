"""Augmentations, optimisers, schedules and trainers."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segplug.protocols import Augmentation, AugmentationContext, Batch
from segplug.testing.conformance.small_training import predict_small, train_small
from segplug.testing.conformance.suite import Subject, check, expect

if TYPE_CHECKING:
    import torch

PATCHES = ((12, 20, 16), (24, 20))
SAMPLES = 3


def _augmentation(subject: Subject, patch: tuple[int, ...]) -> Augmentation:
    context = AugmentationContext(patch, channels=2, use_mask_for_norm=(False, True))
    built: Augmentation = subject.build(context=context)
    return built


def _batch(size: tuple[int, ...]) -> Batch:
    import torch

    random = torch.Generator().manual_seed(0)
    target = torch.randint(-1, 3, (SAMPLES, 1, *size), generator=random, dtype=torch.int16)
    data = torch.randn(SAMPLES, 2, *size, generator=random)
    return Batch(data, target, tuple(f"case_{number}" for number in range(SAMPLES)))


def _drawn(augmentation: Augmentation, patch: tuple[int, ...]) -> tuple[list[Any], tuple[int, ...]]:
    """Parameters of several samples, and the size of region that they need together."""
    parameters = [augmentation.draw(np.random.default_rng(number)) for number in range(SAMPLES)]
    sizes = [augmentation.needed_size(each) for each in parameters]
    return parameters, tuple(max(axis) for axis in zip(*sizes, strict=True))


@check("augmentations", "one state of the generator gives one set of parameters, which can be sent to another process")
def _draws(subject: Subject) -> None:
    for patch in PATCHES:
        augmentation = _augmentation(subject, patch)
        first, second = (pickle.dumps(augmentation.draw(np.random.default_rng(5))) for _ in range(2))
        expect(first == second, f"patch {patch}: the same state gave other parameters: draw from `random` alone")


@check("augmentations", "no draw needs more than the source, and the source is at least the patch")
def _is_bounded(subject: Subject) -> None:
    for patch in PATCHES:
        augmentation = _augmentation(subject, patch)
        source = augmentation.source_size()
        expect(all(s >= p for s, p in zip(source, patch, strict=True)), f"a source of {source} for a patch of {patch}")
        for number in range(50):
            needed = augmentation.needed_size(augmentation.draw(np.random.default_rng(number)))
            fits = all(n <= s for n, s in zip(needed, source, strict=True))
            expect(fits, f"patch {patch}, draw {number}: {needed} is needed of a source of {source}")


@check("augmentations", "a batch comes back finite in the patch's size, with no new label, the same each time")
def _augments(subject: Subject) -> None:
    for patch in PATCHES:
        augmentation = _augmentation(subject, patch)
        parameters, size = _drawn(augmentation, patch)
        found, again = (augmentation(_batch(size), parameters) for _ in range(2))
        wanted = (SAMPLES, 2, *patch)
        expect(tuple(found.data.shape) == wanted, f"data of shape {tuple(found.data.shape)}; expected {wanted}")
        expect(found.target.shape[2:] == found.data.shape[2:], f"the target has shape {tuple(found.target.shape)}")
        expect(str(found.data.dtype) == "torch.float32", f"data of {found.data.dtype}; expected float32")
        expect(bool(found.data.isfinite().all()), f"patch {patch}: NaN or infinity in the data")
        new = set(np.unique(found.target.numpy()).tolist()) - {-1, 0, 1, 2}
        expect(not new, f"patch {patch}: labels {sorted(new)} came up")
        expect(found.cases == _batch(size).cases, "the cases' names were lost")
        expect(bool((found.data == again.data).all()), f"patch {patch}: the same parameters gave two results")


@check("augmentations", "the batch given is left as it was")
def _leaves(subject: Subject) -> None:
    augmentation = _augmentation(subject, PATCHES[0])
    parameters, size = _drawn(augmentation, PATCHES[0])
    batch = _batch(size)
    augmentation(batch, parameters)
    kept = (batch.data == _batch(size).data).all() and (batch.target == _batch(size).target).all()
    expect(bool(kept), "data or target were changed in place")


def _descent(subject: Subject) -> tuple[torch.optim.Optimizer, torch.nn.Parameter]:
    import torch

    weights = torch.nn.Parameter(torch.tensor([3.0, -2.0, 1.0]))
    optimizer = subject.build()([{"params": [weights]}], lr=0.01, weight_decay=0.0)
    return optimizer, weights


def _step(optimizer: torch.optim.Optimizer, weights: torch.nn.Parameter) -> float:
    optimizer.zero_grad()
    loss = weights.square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


@check("optimizers", "it descends a parabola, and a learning rate of 0 stands still")
def _descends(subject: Subject) -> None:
    optimizer, weights = _descent(subject)
    losses = [_step(optimizer, weights) for _ in range(30)]
    expect(losses[-1] < 0.95 * losses[0], f"from {losses[0]:.3f} to {losses[-1]:.3f} in 30 steps")
    optimizer, weights = _descent(subject)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = weights.detach().clone()
    _step(optimizer, weights)
    expect(bool((weights == before).all()), "weights moved: the learning rate of `param_groups` is what schedules set")


@check("optimizers", "with its state saved and loaded it goes on as if nothing had happened")
def _resumes(subject: Subject) -> None:
    first, weights = _descent(subject)
    for _ in range(3):
        _step(first, weights)
    second, others = _descent(subject)
    others.data.copy_(weights.data)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(3):
        _step(first, weights)
        _step(second, others)
    expect(bool((weights == others).all()), "after loading its state it takes other steps: training could not resume")


@check("schedules", "learning rates are finite, not negative, never above the one given, and the same each time")
def _decays(subject: Subject) -> None:
    schedule = subject.build()
    for epochs, iterations in ((1, 1), (10, 4), (1000, 2)):
        for epoch in sorted({0, epochs // 2, epochs - 1}):
            for iteration in range(iterations):
                place = {"epoch": epoch, "epochs": epochs, "iteration": iteration, "iterations": iterations}
                value = schedule(0.1, **place)
                expect(bool(np.isfinite(value)) and 0 <= value <= 0.1 * (1 + 1e-6), f"{value} for 0.1 at {place}")
                expect(value == schedule(0.1, **place), f"two values at {place}")


@check("trainers", "its settings are fields of a frozen dataclass, all with defaults")
def _is_settings(subject: Subject) -> None:
    trainer = subject.build()
    expect(dataclasses.is_dataclass(trainer), f"a {type(trainer).__name__} is no dataclass: nothing could be --set")
    parameters = getattr(type(trainer), "__dataclass_params__")  # noqa: B009
    expect(parameters.frozen, f"{type(trainer).__name__} is not frozen")


@check("trainers", "it trains a small network, and leaves a checkpoint that predicts")
def _trains(subject: Subject) -> None:
    trainer = subject.build()
    short = {"epochs": 1, "iterations_per_epoch": 2, "val_iterations_per_epoch": 1, "batch_size": 2}
    settings = {name: value for name, value in short.items() if hasattr(trainer, name)}
    expect("epochs" in settings or "iterations_per_epoch" in settings, "it has no field `epochs` to shorten it by")
    overrides = [f"trainer.{name}={value}" for name, value in {**settings, **subject.ref.options}.items()]
    with tempfile.TemporaryDirectory() as folder:
        model = train_small(subject.kernel, Path(folder), subject.ref.name, overrides)
        found, image = predict_small(subject.kernel, model)
    expect(found.shape == image.shape, f"labels of shape {found.shape} for an image of {image.shape}")
