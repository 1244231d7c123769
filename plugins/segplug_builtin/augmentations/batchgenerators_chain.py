"""Any chain of batchgenerators' transforms."""

from __future__ import annotations

import inspect
import pkgutil
import random as python_random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segplug.errors import PluginError, UsageError
from segplug.protocols import AugmentationContext, Batch, Parameters
from segplug_builtin.augmentations.finishing import OUTSIDE, finished, label_maps, mask_outside
from segplug_builtin.augmentations.geometry import Geometry, geometry_of
from segplug_builtin.augmentations.spatial import crop

LIBRARY = "batchgenerators.transforms"


class BatchgeneratorsAugmentation:
    """Runs transforms of batchgenerators (version 1), sample by sample, on the CPU.

    batchgenerators draws from global generators; they are seeded from a sample's parameters and left as they were.

    Args:
        context: of the training.
        transforms: in order, ``{"name": "GammaTransform", "options": {"gamma_range": [0.7, 1.5]}}`` each: the name of a
            class in `batchgenerators.transforms` and its arguments (lists stand for tuples). A transform that takes a
            `patch_size` and is given none gets the training's. None: nnU-Net's effects (`default_chain`).

    Raises:
        UsageError: there is no transform of a name, or it does not take the options.
    """

    def __init__(self, context: AugmentationContext, transforms: Sequence[Mapping[str, Any]] | None = None) -> None:
        self._context = context
        self._geometry = geometry_of(context.patch_size)
        chain = default_chain(self._geometry) if transforms is None else transforms
        self._transforms = [_make(entry, self._geometry) for entry in chain]
        self._moves = any(folds for _, folds in self._transforms)
        mirrors = [t for t, _ in self._transforms if type(t).__name__ == "MirrorTransform"]
        self.mirror_axes: tuple[int, ...] = tuple(sorted({int(axis) for t in mirrors for axis in t.axes}))

    def source_size(self) -> tuple[int, ...]:
        """nnU-Net's initial patch size if a transform cuts the patch out, else the patch."""
        larger = self._moves and not self._context.validation
        return self._geometry.source_size if larger else self._geometry.patch_size

    def draw(self, random: np.random.Generator) -> Parameters:
        """A seed."""
        return {} if self._context.validation else {"seed": int(random.integers(2**32))}

    def needed_size(self, parameters: Parameters) -> tuple[int, ...]:
        """All of the source: what a transform will read is not known beforehand."""
        return self.source_size()

    def __call__(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        """Run the chain.

        Raises:
            PluginError: what comes out is not of the patch size.
        """
        maps = label_maps(batch)
        if self._context.validation:
            return finished(batch, *(crop(part, self._geometry.patch_size) for part in (batch.data, maps)))
        source = self.source_size()
        pairs = zip(crop(batch.data, source).cpu().numpy(), crop(maps, source).cpu().numpy(), parameters, strict=True)
        changed = [self._run(image, labels, int(drawn["seed"])) for image, labels, drawn in pairs]
        data = torch.from_numpy(np.stack([image for image, _ in changed])).to(batch.data.device)
        maps = torch.from_numpy(np.stack([labels for _, labels in changed])).to(batch.target.device)
        mask_outside(data, maps, self._context.use_mask_for_norm)
        return finished(batch, data, maps)

    def _run(
        self, image: NDArray[np.float32], labels: NDArray[np.int16], seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        arrays: dict[str, Any] = {"data": image[None].copy(), "seg": labels[None].astype(np.float32)}
        with _seeded(seed):
            for transform, folds in self._transforms:
                fold = folds and self._geometry.dummy_2d
                if fold:
                    arrays = {key: array.reshape(1, -1, *array.shape[3:]) for key, array in arrays.items()}
                arrays = transform(**arrays)
                if fold:
                    slices = self._geometry.patch_size[0]
                    arrays = {key: array.reshape(1, -1, slices, *array.shape[2:]) for key, array in arrays.items()}
        data, maps = np.asarray(arrays["data"], np.float32)[0], np.rint(arrays["seg"]).astype(np.int16)[0]
        for array, before in ((data, image), (maps, labels)):
            if array.shape != (len(before), *self._geometry.patch_size):
                raise PluginError(
                    f"augmentation 'batchgenerators': the chain made {array.shape} of {before.shape}; "
                    f"expected {(len(before), *self._geometry.patch_size)}. A transform of the chain crops or resizes"
                )
        return data, maps


def default_chain(geometry: Geometry) -> list[dict[str, Any]]:
    """nnU-Net's effects, ranges and probabilities, as far as batchgenerators has them: scales lie above or below 1
    with equal probability, blur has one width for all axes, low resolution applies to all axes."""
    angle = [-geometry.rotation, geometry.rotation]
    gamma = {"gamma_range": [0.7, 1.5], "per_channel": True, "retain_stats": True}
    chain: list[tuple[str, dict[str, Any]]] = [
        (
            "SpatialTransform",
            {
                "patch_center_dist_from_border": None,
                "do_elastic_deform": False,
                "angle_x": angle,
                "angle_y": angle,
                "angle_z": angle,
                "scale": [0.7, 1.4],
                "border_mode_data": "constant",
                "order_data": 1,
                "border_mode_seg": "constant",
                "border_cval_seg": OUTSIDE,
                "order_seg": 1,
                "random_crop": False,
                "p_scale_per_sample": 0.2,
                "p_rot_per_sample": 0.2,
            },
        ),
        ("GaussianNoiseTransform", {"noise_variance": [0, 0.1], "p_per_sample": 0.1}),
        ("GaussianBlurTransform", {"blur_sigma": [0.5, 1.0], "p_per_sample": 0.2, "p_per_channel": 0.5}),
        ("BrightnessMultiplicativeTransform", {"multiplier_range": [0.75, 1.25], "p_per_sample": 0.15}),
        ("ContrastAugmentationTransform", {"contrast_range": [0.75, 1.25], "p_per_sample": 0.15}),
        (
            "SimulateLowResolutionTransform",
            {
                "zoom_range": [0.5, 1],
                "per_channel": True,
                "p_per_channel": 0.5,
                "order_downsample": 0,
                "order_upsample": 1,
                "p_per_sample": 0.25,
                "ignore_axes": [0] if geometry.dummy_2d else None,
            },
        ),
        ("GammaTransform", {**gamma, "invert_image": True, "p_per_sample": 0.1}),
        ("GammaTransform", {**gamma, "invert_image": False, "p_per_sample": 0.3}),
        ("MirrorTransform", {"axes": list(geometry.mirror_axes)}),
    ]
    return [{"name": name, "options": options} for name, options in chain]


@cache
def known_transforms() -> Mapping[str, type]:
    """Every transform of batchgenerators by the name of its class; nothing outside of the library is ever imported."""
    found: dict[str, type] = {}
    library = import_module(LIBRARY)
    for module in pkgutil.iter_modules(library.__path__):
        name = f"{LIBRARY}.{module.name}"
        classes = inspect.getmembers(import_module(name), inspect.isclass)
        found.update((key, value) for key, value in classes if value.__module__ == name)
    return found


def _make(entry: Mapping[str, Any], geometry: Geometry) -> tuple[Any, bool]:
    """A transform, and whether it cuts out the patch (and works on slices with dummy-2D)."""
    name = entry.get("name")
    known = known_transforms()
    if not isinstance(name, str) or name not in known:
        near = get_close_matches(str(name), known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        names = ", ".join(sorted(known))
        raise UsageError(f"augmentation 'batchgenerators': {LIBRARY} has no {name!r}{hint}. It has: {names}")
    options = {key: _tuples(value) for key, value in dict(entry.get("options") or {}).items()}
    takes_patch = "patch_size" in inspect.signature(known[name]).parameters and "patch_size" not in options
    if takes_patch:
        options["patch_size"] = geometry.patch_size[-geometry.turned_axes :]
    try:
        return known[name](**options), takes_patch
    except TypeError as error:
        raise UsageError(f"augmentation 'batchgenerators': options of {name}: {error}") from None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch, and restore them."""
    before = python_random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    python_random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        python_random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
