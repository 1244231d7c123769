"""Regions are taken from cases as nnunetv2's data loader takes them: cases, forced foreground, classes, voxels, bounds.

Two-sample tests with fixed seeds; the level is stated in the fixture `same_distribution`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from segplug.model import ComponentRef, LabelSet
from segplug.protocols import Batch, BatchRequest, Parameters, PreprocessedCase
from segplug.runtime.batch_loader import open_batches
from segplug.runtime.class_locations import class_locations
from segplug.runtime.patch_sampling import annotated_key

pytestmark = pytest.mark.parity

SCRIPT = Path(__file__).with_name("peer_loader.py")
SECTION = "Training step"


def load_script() -> Any:
    """The script as a module: both programs get the same cases, and their regions are read by the same code."""
    spec = spec_from_file_location("peer_loader", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class WholeRegions:
    """An augmentation that asks for the whole source and changes nothing."""

    size: tuple[int, ...]

    def source_size(self) -> tuple[int, ...]:
        return self.size

    def draw(self, random: np.random.Generator) -> Parameters:
        return {}

    def needed_size(self, parameters: Parameters) -> tuple[int, ...]:
        return self.size

    def __call__(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        return batch


SHARED = load_script()
NAMES = list(SHARED.VARIANTS)


@pytest.fixture(scope="module")
def theirs(peer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of each variant, what nnunetv2 took: see `read_batch` of the script."""
    folder = tmp_path_factory.mktemp("peer")
    environment = {f"nnUNet_{name}": str(folder) for name in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        [str(peer), str(SCRIPT), str(folder / "out.npz")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "out.npz"))


def take(variant: Any, make_store: Callable[[dict[str, PreprocessedCase]], Any]) -> Any:
    """The same of segplug's loader."""
    cases = SHARED.make_cases(variant)
    stored = {
        str(number): PreprocessedCase(case.data, case.target, {}, case.locations) for number, case in enumerate(cases)
    }
    request = BatchRequest(
        augmentation=ComponentRef("none"),
        batch_size=SHARED.BATCH_SIZE,
        epochs=1,
        iterations=SHARED.BATCHES,
        val_iterations=0,
        oversample_foreground=SHARED.SHARE,
        probabilistic_oversampling=variant.probabilistic,
    )
    regions = WholeRegions(variant.source)
    opened = open_batches(
        make_store(stored),
        sorted(stored),
        (),
        request,
        augmentation=regions,
        validation=regions,
        patch_size=variant.patch,
        seed=0,
        fold=0,
        annotated=annotated_key((0, 1, 2, 3)) if variant.ignore else None,
    )
    with opened as batches:
        return np.concatenate([SHARED.read_batch(batch.data, batch.target, cases) for batch in batches])


def same_counts(first: Any, second: Any) -> float:
    """p of the chi-square test; what is too rare for it counts as one kind."""
    kinds, which = np.unique(np.concatenate([first, second]), axis=0, return_inverse=True)
    which = which.ravel()
    counts = np.stack([np.bincount(part, minlength=len(kinds)) for part in np.split(which, [len(first)])])
    rare = counts.sum(0) < 10
    counts = np.concatenate([counts[:, ~rare], counts[:, rare].sum(1, keepdims=True)], 1)
    counts = counts[:, counts.sum(0) > 0]
    return 1.0 if counts.shape[1] == 1 else float(chi2_contingency(counts).pvalue)


@pytest.mark.parametrize("name", NAMES)
def test_regions(theirs: dict[str, Any], memory_store: Any, parity: Any, same_distribution: Any, name: str) -> None:
    variant, other = SHARED.VARIANTS[name], theirs[name]
    mine = take(variant, memory_store)
    assert mine.shape == other.shape
    wrong = int(mine[:, -1].sum() + other[:, -1].sum())
    parity("patches: voxels that are not the case's, or 0 and -1 outside", 2 * len(mine), wrong, 0, section=SECTION)
    found = {"cases": same_counts(mine[:, :1], other[:, :1])}
    bounds = 0
    for number in range(len(SHARED.SHAPES)):
        for forced in (False, True):
            first, second = (
                rows[(rows[:, 0] == number) & ((rows[:, 1] >= 3) == forced)][:, 2:5] for rows in (mine, other)
            )
            assert min(len(first), len(second)) > 300
            found[f"case {number}, {forced}: places"] = same_counts(first, second)
            for axis in range(3):
                found[f"case {number}, {forced}: axis {axis}"] = ks_2samp(
                    first[:, axis], second[:, axis], method="asymp"
                ).pvalue
            if not (variant.ignore or forced or variant.probabilistic):  # uniform: extremes are sure to be met
                bounds += int((first.min(0) != second.min(0)).sum() + (first.max(0) != second.max(0)).sum())
    parity("patches: bounds of random places that differ", 6 * len(SHARED.SHAPES), bounds, 0, section=SECTION)
    same_distribution("patches: cases, places of forced foreground and of others", found, section=SECTION)


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("regions", [False, True])
def test_voxels_that_are_kept(
    theirs: dict[str, Any], parity: Any, same_distribution: Any, regions: bool, ignore: bool
) -> None:
    """Of each class or region, and of all annotated voxels: how many, and where."""
    keys = SHARED.LARGE_KEYS[regions]
    described = {"background": 0, "a": keys[0], "b": keys[1], "c": keys[2], **({"ignore": 4} if ignore else {})}
    labels = SHARED.large_labels()
    mine = class_locations(labels, LabelSet(described))
    prefix = f"voxels {len(repr(keys))} {int(ignore)} "
    other = {name.removeprefix(prefix): voxels for name, voxels in theirs.items() if name.startswith(prefix)}
    assert {str(key) for key in mine} == other.keys()
    differing, found = 0, {}
    for key, voxels in mine.items():
        expected = other[str(key)]
        differing += abs(len(voxels) - len(expected))
        assert np.isin(labels[(0, *voxels.T)], key).all()
        assert len(np.unique(voxels, axis=0)) == len(voxels)
        for axis in range(3):
            found[f"{key}, axis {axis}"] = ks_2samp(voxels[:, axis], expected[:, axis], method="asymp").pvalue
        found[f"{key}, labels"] = same_counts(labels[(0, *voxels.T)][:, None], labels[(0, *expected.T)][:, None])
    parity("voxels kept of each class: how many", len(mine), differing, 0, section=SECTION)
    same_distribution("voxels kept of each class: where, and of which label", found, section=SECTION)
