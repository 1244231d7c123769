"""Run by the Python of nnunetv2's environment: which regions its data loader takes from cases made here.

python peer_loader.py OUTPUTS.npz

The images hold their own coordinates, so that a region tells where it was taken from.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

BATCHES, BATCH_SIZE, SHARE = 600, 5, 0.33
SHAPES = ((20, 30, 25), (9, 50, 18), (26, 26, 40))


@dataclass(frozen=True)
class Variant:
    """A loader to compare.

    Args:
        source, patch: sizes of the region and of what the network sees of it.
        keys: of the classes; tuples for regions.
        empty: the last case has no foreground.
        ignore: with an ignore label: most voxels are not annotated.
        probabilistic: each sample draws whether it must hold foreground.
    """

    source: tuple[int, ...] = (24, 40, 33)
    patch: tuple[int, ...] = (16, 24, 20)
    keys: tuple[Any, ...] = (1, 2, 3)
    empty: bool = False
    ignore: bool = False
    probabilistic: bool = False

    @property
    def annotated(self) -> tuple[int, ...]:
        return (-1, 0, 1, 2, 3)


VARIANTS = {
    "3D": Variant(),
    "2D": Variant(source=(58, 57), patch=(50, 40)),
    "validation": Variant(source=(16, 24, 20)),
    "regions": Variant(keys=((1, 2, 3), (2, 3), 3)),
    "no foreground": Variant(empty=True),
    "ignore label": Variant(ignore=True),
    "ignore label, nothing else": Variant(ignore=True, empty=True),
    "probabilistic": Variant(probabilistic=True),
}


@dataclass(frozen=True)
class Case:
    """data: three coordinates (from 1) and the case's number (from 1); target (1, z, y, x)."""

    data: Any
    target: Any
    locations: dict[Any, Any]


def make_cases(variant: Variant) -> list[Case]:
    cases = []
    for number, shape in enumerate(SHAPES):
        random = np.random.default_rng(number)
        grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")) + 1.0
        data = np.concatenate([grid, np.full((1, *shape), number + 1.0)]).astype(np.float32)
        target = np.zeros((1, *shape), np.int16)
        target[:, :2] = -1
        if not (variant.empty and number == 2):
            target[0, 4:6, 8:15, 5:9] = 1
            target[0, 6, 12:16, 3:17:2] = 2
            if number != 1:  # one case lacks a class
                target[0, 1, 2, 3] = target[0, shape[0] - 1, shape[1] - 1, 0] = 3
        annotated = random.random(shape) < 0.05 if variant.ignore else np.ones(shape, bool)
        target[0][~annotated & (target[0] == 0)] = 4
        locations = {key: np.argwhere(np.isin(target[0], key)).astype(np.int32) for key in variant.keys}
        if variant.ignore:
            locations[variant.annotated] = np.argwhere(target[0] != 4).astype(np.int32)
        cases.append(Case(data, target, locations))
    return cases


def large_labels() -> Any:
    """(1, z, y, x) with classes of some 100, 40 000 and 1 400 000 voxels: all kept, 10 000 kept, 1 % kept."""
    labels = np.zeros((1, 120, 130, 140), np.int16)
    labels[:, :115, :, :110] = 3
    labels[:, :30, :40, :40] = 2
    labels[:, 40:44, 50:55, 60:65] = 1
    labels[:, :, :, 130:] = -1
    labels[:, :, 100:, 115:130] = 4
    return labels


LARGE_KEYS = (1, 2, 3), ((1, 2, 3), (2, 3), 3)


def read_batch(data: Any, target: Any, cases: list[Case]) -> Any:
    """Per sample: number of the case, place in the batch, first voxel of the region, and how many voxels are not what
    the case has there (or 0 and -1 outside of it)."""
    rows = []
    data, target = np.asarray(data), np.asarray(target)
    if data.ndim == 4:  # of a 2D patch
        data, target = data[:, :, None], target[:, :, None]
    for place, (region, labels) in enumerate(zip(data, target, strict=True)):
        inside = np.argwhere(region[3] > 0)
        start = region[(slice(0, 3), *inside[0])].astype(int) - 1 - inside[0]
        number = int(region[(3, *inside[0])]) - 1
        rows.append([number, place, *start, _wrong(region, labels, start, cases[number])])
    return np.array(rows)


def _wrong(region: Any, labels: Any, start: Any, case: Case) -> int:
    shape = region.shape[1:]
    data, target = np.zeros_like(region), np.full_like(labels, -1)
    low = np.maximum(start, 0)
    high = np.minimum(start + shape, case.target.shape[1:])
    there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    here = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    data[:, *here], target[:, *here] = case.data[:, *there], case.target[:, *there]
    return int((data != region).sum() + (target != labels).sum())


def main(outputs: str) -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

    np.random.seed(0)  # noqa: NPY002
    made = {}
    for name, variant in VARIANTS.items():
        cases = make_cases(variant)

        class Cases:
            identifiers = tuple(str(number) for number in range(len(SHAPES)))

            def load_case(self, name: str, cases: list[Case] = cases) -> Any:
                case = cases[int(name)]
                locations = {key: np.pad(voxels, ((0, 0), (1, 0))) for key, voxels in case.locations.items()}
                return case.data, case.target, None, {"class_locations": locations}

        class Labels:
            all_labels = [0, 1, 2, 3]  # noqa: RUF012
            has_ignore_label = variant.ignore

        options = {"oversample_foreground_percent": SHARE, "probabilistic_oversampling": variant.probabilistic}
        loader = nnUNetDataLoader(Cases(), BATCH_SIZE, variant.source, variant.patch, Labels(), **options)
        rows = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(BATCHES):
                batch = loader.generate_train_batch()
                rows.append(read_batch(batch["data"], batch["target"], cases))
        made[name] = np.concatenate(rows)
    for keys in LARGE_KEYS:
        for number in range(2):  # the second time with the key of an ignore label
            wanted = [*keys, [-1, 0, 1, 2, 3]][: len(keys) + number]
            found = DefaultPreprocessor._sample_foreground_locations(large_labels(), wanted)
            made |= {f"voxels {len(repr(keys))} {number} {key}": voxels[:, 1:] for key, voxels in found.items()}
    np.savez(outputs, **made)


if __name__ == "__main__":
    main(*sys.argv[1:])
