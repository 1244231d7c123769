"""Summaries and postprocessing decisions equal those of nnunetv2 itself.

Needs the Python of an environment with nnunetv2 (nox -s parity).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segplug.model import Geometry, Labels, LabelSet
from segplug.runtime.evaluation import build_metrics, evaluate_case, summarise, write_summary
from segplug_builtin.postprocessors import LargestComponent

pytestmark = pytest.mark.parity

PROGRAM = """
import multiprocessing
import sys
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2
from nnunetv2.postprocessing.remove_connected_components import determine_postprocessing

if __name__ == "__main__":
    # its pools start a Python for each call: threads do the same work
    multiprocessing.get_context = lambda method=None: SimpleNamespace(Pool=ThreadPool)
    reference, prediction, dataset_json, plans = sys.argv[1:]
    compute_metrics_on_folder2(reference, prediction, dataset_json, plans, num_processes=1)
    determine_postprocessing(prediction, reference, plans, dataset_json, num_processes=1)
"""

DATASETS = {
    "labels": {"background": 0, "a": 1, "b": 2, "c": 3},
    "single": {"background": 0, "a": 1},
    "regions": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "tip": [3]},
    "ignore": {"background": 0, "a": 1, "b": 2, "ignore": 3},
    "regions_ignore": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
}


def make_case(rng, kind, number):
    """An organ of nested or neighbouring balls, now and then in two parts; predicted with a shift and with islands."""
    values = sorted({int(v) for value in DATASETS[kind].values() for v in np.atleast_1d(value)} - {0})
    values = values[:-1] if "ignore" in kind else values
    reference = np.zeros((10, 24, 22), np.uint8)
    z, y, x = np.ogrid[:10, :24, :22]
    for value in values:
        centre, radius = rng.integers([3, 6, 5], [7, 12, 17]), rng.uniform(2, 5 - value)
        reference[(z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2] = value
    if rng.random() < 0.3:
        reference[4:7, 20:23, 3:6] = rng.choice(values)
    prediction = np.roll(reference, int(rng.integers(-1, 2)), axis=1)
    for _ in range(rng.integers(0, 4)):
        corner = rng.integers([0, 15, 0], [8, 22, 20])
        prediction[tuple(slice(c, c + 2) for c in corner)] = rng.choice(values)
    if number == 2:
        reference[reference == 1] = 0  # a class that this reference lacks
    if "ignore" in kind:
        reference[rng.random(10) < 0.4] = values[-1] + 1
    return reference, prediction


@pytest.mark.parametrize("seed", [1, 6])
@pytest.mark.parametrize("kind", DATASETS)
def test_summary_and_postprocessing_equal_nnunets(kind, seed, peer, shared, kernel, parity, tmp_path):
    rng = np.random.default_rng(seed)
    content = {"channel_names": {"0": "MRI"}, "labels": DATASETS[kind], "numTraining": 4, "file_ending": ".nii.gz"}
    if "regions" in kind:
        content["regions_class_order"] = list(range(1, 4 if kind == "regions" else 3))
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (tmp_path / "program.py").write_text(PROGRAM)
    values = {n: tuple(v) if isinstance(v, list) else v for n, v in DATASETS[kind].items()}
    labels = LabelSet(values, tuple(content.get("regions_class_order", ())))
    pairs, cases = [], []
    for number in range(4):
        arrays = make_case(rng, kind, number)
        files = [Path(folder, f"case_{number}.nii.gz") for folder in ("reference", "prediction")]
        for file, array in zip(files, arrays, strict=True):
            (tmp_path / file.parent).mkdir(exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / file))
        pair = tuple(Labels(array, Geometry((1.0, 1.0, 1.0))) for array in arrays)
        pairs.append(pair)
        cases.append(
            evaluate_case(
                *pair, labels, build_metrics(kernel.registry), reference_file=files[0], prediction_file=files[1]
            )
        )
    run_peer(peer, tmp_path, shared)

    write_summary(tmp_path / "ours.json", summarise(cases))
    theirs = (tmp_path / "prediction" / "summary.json").read_text()
    differs = (tmp_path / "ours.json").read_text() != theirs
    parity("summary.json, byte by byte (files that differ)", 1, float(differs), 0, section="After prediction")

    decided = LargestComponent().fit(pairs, labels)
    of_peer = json.loads((tmp_path / "prediction" / "postprocessing.json").read_text())
    differs = json.loads(json.dumps(decided, sort_keys=True)) != of_peer
    parity("postprocessing.json (files that differ)", 1, float(differs), 0, section="After prediction")
    largest = 0.0
    for number, (_, prediction) in enumerate(pairs):
        theirs_cleaned = sitk.GetArrayFromImage(
            sitk.ReadImage(str(tmp_path / "prediction" / "postprocessed" / f"case_{number}.nii.gz"))
        )
        cleaned = LargestComponent().apply(prediction, of_peer, labels).array
        largest = max(largest, float(np.mean(cleaned != theirs_cleaned)))
    parity("label maps after postprocessing (share of voxels that differ)", 4, largest, 0, section="After prediction")


def run_peer(peer: Path, folder: Path, shared: Path) -> None:
    plans = shared / "reference" / "Dataset004_Hippocampus" / "nnUNetPlans.json"
    roots = {f"nnUNet_{name}": str(folder) for name in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        [peer, "program.py", "reference", "prediction", "dataset.json", str(plans)],
        cwd=folder,
        env={**os.environ, **roots},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
