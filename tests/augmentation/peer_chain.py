"""Run by the Python of nnunetv2's environment: its whole chain of transforms, and each of them alone.

python peer_chain.py INPUTS.npz OUTPUTS.npz
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

SAMPLES = 1200
"""Of each transform alone, and of the whole chain."""
REGIONS = ((1, 2, 3), (2, 3), (3,))
IGNORE = 4


def slopes(ramps: Any) -> list[float]:
    """Of ramps (axes, *spatial), each the coordinate along one axis before a transform: change per voxel along every
    axis after it, taken in the middle, which lies inside of the source whatever the transform."""
    middle = np.asarray(ramps, float)[(slice(None), *(slice(n // 2 - 1, n // 2 + 1) for n in ramps.shape[1:]))]
    return [float(np.diff(ramp, axis=axis).mean()) for ramp in middle for axis in range(middle.ndim - 1)]


def measure(image: Any, before: Any) -> list[float]:
    """What tells apart changes of a texture's channels (channels, *spatial)."""
    numbers = []
    for channel, old in zip(np.asarray(image, float), np.asarray(before, float), strict=True):
        change = channel - old
        edges = [(np.diff(channel, axis=axis) ** 2).mean() for axis in range(channel.ndim)]
        skew = (((channel - channel.mean()) / channel.std()) ** 3).mean()
        numbers += [change.mean(), change.std(), channel.std(), channel.min(), channel.max(), skew, *edges]
    return numbers


def whole(image: Any, target: Any) -> list[float]:
    """What tells apart samples of the whole chain: image (2, *spatial), target (*spatial) of labels 0, 1, 2.

    The shares of exact zeros tell what was masked."""
    numbers = []
    target = np.asarray(target)
    for channel in np.asarray(image, float):
        edges = [np.abs(np.diff(channel, axis=axis)).mean() for axis in range(channel.ndim)]
        skew = (((channel - channel.mean()) / channel.std()) ** 3).mean()
        numbers += [channel.mean(), channel.std(), channel.min(), channel.max(), skew, (channel == 0).mean(), *edges]
    held = np.argwhere(target == 1)
    middle, spread = (held.mean(0), held.std(0)) if len(held) else (-np.ones(target.ndim), -np.ones(target.ndim))
    return [*numbers, *middle, *spread, *((target == label).mean() for label in (0, 1, 2))]


def describe(transform: Any) -> dict[str, Any]:
    """Class of a transform and its settings, as JSON knows them."""

    def plain(value: Any) -> Any:
        if hasattr(value, "contrast_range"):
            return {"around one": list(value.contrast_range)}
        return json.loads(json.dumps(value, default=repr))

    return {"name": type(transform).__name__, **{key: plain(value) for key, value in vars(transform).items()}}


def described(chain: Any) -> str:
    listed = []
    for transform in chain.transforms:
        if hasattr(transform, "apply_probability"):
            listed.append({"probability": transform.apply_probability, **describe(transform.transform)})
        else:
            listed.append(describe(transform))
    return json.dumps(listed)


def named(chain: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, transform and what it applies at random (or itself); the two gammas get names of their own."""
    gammas = iter(("InvertedGamma", "Gamma"))
    for transform in chain.transforms:
        inner = getattr(transform, "transform", transform)
        name = type(inner).__name__
        yield next(gammas) if name == "GammaTransform" else name, transform, inner


def fixed(chain: Any, given: Any) -> None:
    """Make the chain do to its next sample exactly what is given."""
    by_name = {name: inner for name, _, inner in named(chain)}
    for _, transform, inner in named(chain):
        if inner is not transform:
            transform.apply_probability = 2
    angles, scale = given["angles"], float(given["scale"])
    spatial = by_name["SpatialTransform"]
    spatial.p_rotation = spatial.p_scaling = 2
    spatial.rotation = lambda image, dim: float(angles[min(dim, len(angles) - 1)])
    spatial.scaling = lambda image, dim: scale
    noise = _tensor(given["noise"])
    by_name["GaussianNoiseTransform"]._apply_to_image = lambda image, **parameters: image + noise
    sigmas: Iterator[float] = iter(given["blur"].ravel().tolist())
    blur, lower = by_name["GaussianBlurTransform"], by_name["SimulateLowResolutionTransform"]
    blur.p_per_channel = lower.p_per_channel = 2
    blur.blur_sigma = lambda shape, dim: next(sigmas)
    lower.scale = _of_channel(given["low_resolution"])
    by_name["MultiplicativeBrightnessTransform"].multiplier_range = _of_channel(given["brightness"])
    by_name["ContrastTransform"].contrast_range = _of_channel(given["contrast"])
    by_name["InvertedGamma"].gamma = _of_channel(given["inverted_gamma"])
    by_name["Gamma"].gamma = _of_channel(given["gamma"])
    axes = np.flatnonzero(given["mirror"]).tolist()
    by_name["MirrorTransform"].get_parameters = lambda **data: {"axes": axes}


def _of_channel(values: Any) -> Callable[..., float]:
    return lambda image, channel, dim=None: float(values[int(channel)])


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(np.array(array))


def alone(chain: Any, wanted: str) -> Any:
    """The chain with nothing random but one transform, which keeps its probability."""
    for name, transform, inner in named(chain):
        if name == wanted:
            continue
        if inner is not transform:
            transform.apply_probability = 0
        elif name == "SpatialTransform":
            transform.p_rotation = transform.p_scaling = 0
        elif name == "MirrorTransform":
            transform.allowed_axes = ()
    return chain


def main(inputs: str, outputs: str) -> None:
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    given = dict(np.load(inputs))
    made: dict[str, Any] = {}

    def chain(number: int, **options: Any) -> Any:
        patch, turn = tuple(given[f"patch_{number}"].tolist()), float(given[f"rotation_{number}"])
        axes, flat = tuple(range(len(patch))), bool(given[f"dummy_{number}"])
        scales = options.pop("scales", None)
        return nnUNetTrainer.get_training_transforms(patch, (-turn, turn), scales, axes, flat, **options)

    for number in range(int(given["patches"])):
        of_patch = {k.removesuffix(f"_{number}"): v for k, v in given.items() if k.endswith(f"_{number}")}
        masked = {"use_mask_for_norm": [True, False]}
        made[f"described_{number}"] = described(chain(number, **masked))
        axes = len(of_patch["patch"])
        scales = [[1.0] * axes, [0.5] * axes]
        for kind, options in (
            ("labels", {}),
            ("regions", {"regions": list(REGIONS)}),
            ("ignore", {"regions": list(REGIONS), "ignore_label": IGNORE}),
        ):
            transforms = chain(number, scales=scales, **masked, **options)
            fixed(transforms, of_patch)
            done = transforms(image=_tensor(of_patch["image"]), segmentation=_tensor(of_patch["labels"]))
            made[f"image_{kind}_{number}"] = done["image"].numpy()
            for level, target in enumerate(done["segmentation"]):
                made[f"target_{kind}_{level}_{number}"] = target.numpy()
        for name in given["transforms"].tolist():
            transforms = alone(chain(number), name)
            moves = name in ("SpatialTransform", "MirrorTransform")
            image, labels = _tensor(of_patch["ramps" if moves else "texture"]), _tensor(of_patch["nothing"])
            numbers = []
            for _ in range(SAMPLES):
                done = transforms(image=image.clone(), segmentation=labels.clone())["image"].numpy()
                numbers.append(slopes(done) if moves else measure(done, of_patch["texture_patch"]))
            made[f"{name}_{number}"] = np.array(numbers)
        transforms, numbers = chain(number, **masked), []
        for _ in range(SAMPLES):
            image, labels = _tensor(of_patch["source"]), _tensor(of_patch["target"])
            done = transforms(image=image, segmentation=labels)
            numbers.append(whole(done["image"].numpy(), done["segmentation"][0].numpy()))
        made[f"whole_{number}"] = np.array(numbers)
    np.savez(outputs, **made)


if __name__ == "__main__":
    main(*sys.argv[1:])
