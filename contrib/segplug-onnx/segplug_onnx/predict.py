"""Segments images with the networks of the folder that this file lies in. Needs NumPy and ONNX Runtime.

    from predict import ExportedModel
    labels = ExportedModel(FOLDER).segment(image, spacing)     # image (c, z, y, x), spacing of z, y, x

    python predict.py image.npy labels.npy --spacing 1 1 1

What is done, with which numbers, is in recipe.json. (SciPy is needed too where statistics are taken within a mask.)
"""

from __future__ import annotations

import argparse
import hashlib
import json
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Array = np.ndarray[Any, Any]

SMALLEST = 1e-8
"""A standard deviation or range below it counts as this."""


class ExportedModel:
    """The networks of an exported folder.

    Args:
        folder: with recipe.json.
        precision: `fp32` or `int8`.
        folds: whose logits are averaged; None for all.
        threads: of ONNX Runtime; 0 for all cores.
        verify: compare the files' SHA-256 with the recipe.

    Raises:
        ValueError: a file is not the one that was exported, or the recipe has steps that are not written here.
    """

    def __init__(
        self,
        folder: str | Path,
        precision: str = "fp32",
        folds: list[int | str] | None = None,
        threads: int = 0,
        verify: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.recipe = json.loads((self.folder / "recipe.json").read_text(encoding="utf-8"))
        if self.recipe["previous_stage"]:
            raise ValueError("a cascade: it takes the label map of a previous stage, which is not written here")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.sessions = []
        for network in self.recipe["networks"]:
            if (network["precision"], network["format"]) != (precision, "onnx"):
                continue
            if folds is not None and network["fold"] not in folds:
                continue
            file = self.folder / network["file"]
            if verify and hashlib.sha256(file.read_bytes()).hexdigest() != network["sha256"]:
                raise ValueError(f"{file}: not the file that was exported (another SHA-256 than in recipe.json)")
            self.sessions.append(onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]))
        if not self.sessions:
            raise ValueError(f"{self.folder}: no networks of precision {precision}, folds {folds}")

    def segment(self, image: Any, spacing: Any, mirroring: bool = True) -> Array:
        """Labels, integers (z, y, x).

        Args:
            image: (channels, z, y, x), raw intensities.
            spacing: of z, y, x.
        """
        recipe = self.recipe
        image = np.array(image, np.float32)
        if image.ndim != 4 or len(image) != len(recipe["channels"]) or not np.isfinite(image).all():
            raise ValueError(f"image of shape {image.shape}; expected (c, z, y, x), finite, c = {recipe['channels']}")
        order = recipe["transpose_forward"]
        image = image.transpose(0, *(1 + axis for axis in order))
        spacing = [float(spacing[axis]) for axis in order]
        box = nonzero_box(image)
        data = normalize(image[(slice(None), *box)].copy(), recipe["normalization"])
        target = [*spacing[: 3 - len(recipe["spacing"])], *recipe["spacing"]]
        shape = [max(1, round(old / new * n)) for old, new, n in zip(spacing, target, data.shape[1:], strict=True)]
        cropped = data.shape[1:]
        data = resample(data, shape, spacing, target, recipe["resampling"]["data"])
        logits = self.logits(data, mirroring)
        logits = resample(logits, cropped, target, spacing, recipe["resampling"]["logits"])
        labels = np.zeros(image.shape[1:], np.int32)
        labels[box] = to_labels(logits, recipe["labels"])
        return labels.transpose(np.argsort(order))

    def logits(self, data: Array, mirroring: bool = True) -> Array:
        """The networks' logits for a preprocessed image (c, z, y, x), averaged over tiles, mirrorings and folds."""
        window = self.recipe["window"]
        patch = [1] * (3 - len(window["patch_size"])) + list(window["patch_size"])
        missing = [max(p - n, 0) for p, n in zip(patch, data.shape[1:], strict=True)]
        before = [m // 2 for m in missing]
        padded = np.pad(data, [(0, 0), *((b, m - b) for b, m in zip(before, missing, strict=True))])
        weight = np.ones((1, 1, 1), np.float64)
        for axis, size in enumerate(patch):
            if size > 1 or len(window["patch_size"]) == 3:
                distance = (np.arange(size) - size // 2) / (size * window["gaussian_sigma"])
                weight = weight * np.exp(-0.5 * distance**2).reshape([-1 if a == axis else 1 for a in range(3)])
        starts = [tile_starts(n, p, window["step_size"]) for n, p in zip(padded.shape[1:], patch, strict=True)]
        classes = len(self.recipe["labels"]["of_channels"])
        total, weights = np.zeros((classes, *padded.shape[1:])), np.zeros(padded.shape[1:])
        for corner in product(*starts):
            place = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
            tile = self.averaged(padded[(slice(None), *place)], window["mirror_axes"] if mirroring else [])
            total[(slice(None), *place)] += tile * weight
            weights[place] += weight
        inside = tuple(slice(b, b + n) for b, n in zip(before, data.shape[1:], strict=True))
        logits = (total / weights)[(slice(None), *inside)].astype(np.float32)
        if not np.isfinite(logits).all():
            raise ValueError("the networks' output is not finite")
        return logits

    def averaged(self, tile: Array, mirror_axes: list[int]) -> Array:
        """Logits (classes, z, y, x) of one tile (c, z, y, x). Mirror axes are those of the patch."""
        flat = len(self.recipe["window"]["patch_size"]) == 2
        batch = np.ascontiguousarray(tile[:, 0] if flat else tile)[None]
        found = []
        for count in range(len(mirror_axes) + 1):
            for axes in combinations([axis + 2 for axis in mirror_axes], count):
                mirrored = np.ascontiguousarray(np.flip(batch, axes))
                found += [np.flip(s.run(["logits"], {"image": mirrored})[0], axes)[0] for s in self.sessions]
        mean: Array = np.stack(found).mean(axis=0, dtype=np.float64)
        return mean[:, None] if flat else mean


def nonzero_box(image: Array) -> tuple[slice, ...]:
    """The smallest box with all voxels that are not 0 in some channel, as slices."""
    mask = (image != 0).any(0)
    if not mask.any():
        return tuple(slice(0, n) for n in mask.shape)
    hits = [np.flatnonzero(mask.any(tuple(b for b in range(3) if b != axis))) for axis in range(3)]
    return tuple(slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)


def normalize(data: Array, steps: list[Any]) -> Array:
    """Normalise each channel of a cropped image (c, z, y, x), in place."""
    mask = None
    if any(step["use_mask"] for step in steps):
        from scipy.ndimage import binary_fill_holes

        mask = binary_fill_holes((data != 0).any(0))
    for channel, step in zip(data, steps, strict=True):
        method = step["method"]
        if method == "zscore":
            within = mask if step["use_mask"] else np.ones(channel.shape, bool)
            values = channel[within].astype(np.float64)
            if values.size:
                channel[within] = (values - values.mean()) / max(values.std(), SMALLEST)
        elif method == "ct":
            np.clip(channel, step["percentile_00_5"], step["percentile_99_5"], out=channel)
            channel[:] = (channel - step["mean"]) / max(step["std"], SMALLEST)
        elif method == "rescale_to_0_1":
            channel[:] = (channel - channel.min()) / max(channel.max() - channel.min(), SMALLEST)
        elif method == "rgb_to_0_1":
            channel[:] = channel / 255
        elif method != "none":
            raise ValueError(f"normalisation {step['name']}: not written here")
    return data


def resample(array: Array, shape: Any, spacing: list[float], new_spacing: list[float], how: Any) -> Array:
    """Bring (c, *old) to (c, *shape) by splines, axis by axis; the coarsest axis by itself where it is much coarser.

    The result keeps within the range of the input (of each slice, if an axis goes by itself).
    """
    if how["method"] == "none" or tuple(array.shape[1:]) == tuple(shape):
        return array
    if how["method"] != "spline":
        raise ValueError(f"resampling {how['name']}: not written here")
    alone = None
    deciding = spacing if how["force_separate_z"] else None
    if how["force_separate_z"] is None:
        ratio = how["separate_z_anisotropy_threshold"]
        deciding = next((s for s in (spacing, new_spacing) if max(s) / min(s) > ratio), None)
    if deciding is not None and list(deciding).count(max(deciding)) == 1:
        alone = list(deciding).index(max(deciding))
    result = array
    axes = [axis for axis in range(3) if axis != alone and array.shape[1 + axis] != shape[axis]]
    for axis in axes:
        matrix = spline_matrix(array.shape[1 + axis], shape[axis], how["order"])
        result = np.moveaxis(np.tensordot(matrix, result, (1, 1 + axis)), 0, 1 + axis)
    if axes and how["order"] > 1:
        within = tuple(1 + axis for axis in range(3) if axis != alone)
        result = np.clip(result, array.min(within, keepdims=True), array.max(within, keepdims=True))
    if alone is not None and array.shape[1 + alone] != shape[alone]:
        matrix = spline_matrix(array.shape[1 + alone], shape[alone], how["order_z"])
        result = np.moveaxis(np.tensordot(matrix, result, (1, 1 + alone)), 0, 1 + alone)
    return np.ascontiguousarray(result, np.float32)


def spline_matrix(old: int, new: int, order: int) -> Array:
    """(new, old) weights of interpolation at (i + 0.5) old / new - 0.5, the ends repeated; order 0, 1 or 3."""
    place = (np.arange(new) + 0.5) * (old / new) - 0.5
    matrix = np.zeros((new, old))
    rows = np.arange(new)
    first = np.floor(place).astype(int)
    x = place - first
    if order == 0:
        matrix[rows, np.clip(np.floor(place + 0.5).astype(int), 0, old - 1)] = 1
    elif order == 1:
        for k, weight in enumerate((1 - x, x)):
            np.add.at(matrix, (rows, np.clip(first + k, 0, old - 1)), weight)
    elif order == 3:
        taps = (
            (1 - x) ** 3 / 6,
            (3 * x**3 - 6 * x**2 + 4) / 6,
            (3 * (1 - x) ** 3 - 6 * (1 - x) ** 2 + 4) / 6,
            x**3 / 6,
        )
        pole = np.sqrt(3) - 2  # of the filter from samples to cubic spline coefficients
        for k, weight in enumerate(taps):
            for reach in range(-18, 19):
                column = np.clip(first + k - 1 + reach, 0, old - 1)
                np.add.at(matrix, (rows, column), weight * np.sqrt(3) * pole ** abs(reach))
        matrix /= matrix.sum(1, keepdims=True)
    else:
        raise ValueError(f"spline of order {order}: not written here")
    return matrix


def tile_starts(size: int, patch: int, step: float) -> list[int]:
    """First voxels of the tiles along an axis: evenly spaced, at most step * patch apart."""
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    return [int(np.round((size - patch) / max(count - 1, 1) * i)) for i in range(count)]


def to_labels(logits: Array, labels: Any) -> Array:
    """Logits (classes, z, y, x) to labels: the largest wins; regions above 0 (a chance of 0.5) are painted in order."""
    values = np.array(labels["of_channels"], np.int32)
    if not labels["regions"]:
        largest: Array = values[logits.argmax(0)]
        return largest
    result = np.zeros(logits.shape[1:], np.int32)
    for channel, value in zip(logits, values, strict=True):
        result[channel > 0] = value
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Segment an image with an exported model.")
    parser.add_argument("image", help=".npy, (channels, z, y, x)")
    parser.add_argument("labels", help=".npy to write, (z, y, x)")
    parser.add_argument("--spacing", type=float, nargs=3, required=True, metavar=("Z", "Y", "X"))
    parser.add_argument("--precision", default="fp32")
    given = parser.parse_args()
    model = ExportedModel(Path(__file__).parent, given.precision)
    np.save(given.labels, model.segment(np.load(given.image), given.spacing))
