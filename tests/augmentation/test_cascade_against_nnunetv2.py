"""What a cascade's previous stage predicted is spoilt as nnunetv2 does: by given parameters, and as it draws them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import chi2_contingency, ks_2samp

from segplug.protocols import Parameters
from segplug.runtime.randomness import generator
from segplug_builtin.augmentations.cascade import OPERATORS, CascadeEffects, draw_cascade, spoil

pytestmark = pytest.mark.parity

SCRIPT = Path(__file__).with_name("peer_cascade.py")
SHAPES = [(14, 18, 16), (30, 26)]
RADII = (1.0, 1.3, 1.5, 2.2, 3.9, 5.0, 7.7)
EFFECTS = CascadeEffects()
SECTION = "Augmentation"


def load_script() -> Any:
    spec = spec_from_file_location("peer_cascade", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SHARED = load_script()


def label_map(shape: Sequence[int], seed: int) -> Any:
    """Three labels in blobs of many sizes; one touches the borders."""
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.normal(size=shape), 1.5)
    return np.digitize(field / field.std(), [0.5, 0.9, 1.3]).astype(np.int16)


@pytest.fixture(scope="module")
def pair(peer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was given to nnunetv2, and what it made of it."""
    folder = tmp_path_factory.mktemp("peer")
    given: dict[str, Any] = {"maps": len(SHAPES) * len(RADII)}
    for number in range(given["maps"]):
        given[f"labels_{number}"] = label_map(SHAPES[number % len(SHAPES)], number)
        given[f"label_{number}"] = SHARED.LABELS
        given[f"radius_{number}"] = [RADII[(number // len(SHAPES) + label) % len(RADII)] for label in SHARED.LABELS]
    np.savez(folder / "in.npz", **given)
    environment = {f"nnUNet_{name}": str(folder) for name in ("raw", "preprocessed", "results")}
    command = [str(peer), str(SCRIPT), str(folder / "in.npz"), str(folder / "out.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return given, dict(np.load(folder / "out.npz"))


def spoilt(labels: Any, parameters: Parameters) -> Any:
    previous = torch.from_numpy(labels.copy())[None, None]
    spoil(previous, [parameters], EFFECTS)
    return previous[0, 0].numpy()


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators(pair: tuple[dict[str, Any], dict[str, Any]], parity: Any, operator: str) -> None:
    given, made = pair
    for number in range(0, given["maps"], len(SHAPES)):  # the 3D ones: see test_discs
        labels = given[f"labels_{number}"]
        for label, radius in zip(given[f"label_{number}"], given[f"radius_{number}"], strict=True):
            mine = spoilt(labels, {"operators": ((label, operator, int(2 * radius)),)})
            differing = int((mine != made[f"{operator}_{number}_{label}"]).sum())
            what = "cascade, operators on labels by given parameters: voxels that differ"
            parity(what, 1, differing, 0, section=SECTION)


def test_discs(pair: tuple[dict[str, Any], dict[str, Any]], parity: Any) -> None:
    """In 2D, where nnU-Net plans no cascade, nnunetv2's disc of a radius that is no whole number lies off its centre by
    what is left of the radius; here it is as round as the ball."""
    given, made = pair
    for number in range(1, given["maps"], len(SHAPES)):
        for label, radius in zip(given[f"label_{number}"], given[f"radius_{number}"], strict=True):
            for operator in OPERATORS if 2 * radius % 1 == 0 else ():
                mine = spoilt(given[f"labels_{number}"], {"operators": ((label, operator, int(2 * radius)),)})
                differing = int((mine != made[f"{operator}_{number}_{label}"]).sum())
                what = "cascade, operators on labels in 2D, radius of half voxels: voxels that differ"
                parity(what, 1, differing, 0, section=SECTION)


@pytest.mark.parametrize("effect", ["operators", "drops"])
@pytest.mark.parametrize("number", range(2), ids=["3D", "2D"])
def test_distributions(
    pair: tuple[dict[str, Any], dict[str, Any]], same_distribution: Any, number: int, effect: str
) -> None:
    """How often, to which labels, and what the labels then hold."""
    given, made = pair
    assert str(made[f"tail_{number}"]) == repr(
        [
            (EFFECTS.operator, "ApplyRandomBinaryOperatorTransform"),
            (EFFECTS.drop, "RemoveRandomConnectedComponentFromOneHotEncodingTransform"),
        ]
    )
    alone = replace(EFFECTS, drop=0.0) if effect == "operators" else replace(EFFECTS, operator=0.0)
    labels = given[f"labels_{number}"]
    mine = []
    for sample in range(SHARED.SAMPLES):
        drawn = draw_cascade(generator(4, effect, number, sample), SHARED.LABELS, alone)
        mine.append(SHARED.measure(spoilt(labels, drawn), labels))
    first, second = np.array(mine), made[f"measured_{effect}_{number}"]
    found = {
        str(kind): float(ks_2samp(first[:, kind], second[:, kind], method="asymp").pvalue)
        for kind in range(first.shape[1])
    }
    untouched = np.array([(labels == label).sum() for label in SHARED.LABELS])
    patterns = [(numbers[:, :3] != untouched) @ [4, 2, 1] for numbers in (first, second)]
    counts = np.array([np.bincount(pattern, minlength=8) for pattern in patterns])
    counts = counts[:, counts.sum(0) > 9]
    found["which labels change"] = float(chi2_contingency(counts).pvalue)
    kind = "operators on labels" if effect == "operators" else "components that vanish"
    same_distribution(f"cascade, {kind}: how often, which labels, their volumes", found, section=SECTION)
