"""Preprocessing beside nnunetv2's own, case by case: images within 1e-5 of their range, labels on 99.99 % of voxels.

On phantoms of every kind, at the planned and another target spacing, and on the first and last case of each data set;
with labels as for training, and without as for prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from segplug.kernel import Kernel
from segplug.runtime.case_reading import read_image, read_labels
from segplug.runtime.class_locations import class_locations
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.preprocessing import preprocess_image
from segplug.runtime.project import open_project
from segplug.runtime.raw_dataset import load_dataset
from segplug.stages import fingerprint as fingerprint_module
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.testing import KINDS

pytestmark = [pytest.mark.parity, pytest.mark.slow]

REGISTRY = Kernel(discover=False).registry
OTHER_SPACING = (1.3, 0.8, 1.2)
"""Factors to the spacing of the phantoms."""

Parity = Callable[..., None]
RunPeer = Callable[..., Any]


class Job(NamedTuple):
    """One case to preprocess; `dataset` is the folder of raw data."""

    dataset: Path
    plans: Path
    configuration: str
    case: str
    labelled: bool


def planned(raw: Path, name: str, folder: Path, **options: Any) -> Path:
    """The file of segplug's plans; both programs preprocess by them, so that few intensities need be drawn."""
    with pytest.MonkeyPatch.context() as patch, open_project(raw, folder, workers=0) as project:
        patch.setattr(fingerprint_module, "TOTAL_DRAWS", 1e5)
        fingerprint(project, name)
        return project.workspace.plans_file(name, plan(project, name, **options).plans_name)


def jobs_of(dataset: Path, plans: Path, cases: list[str]) -> list[Job]:
    return [
        Job(dataset, plans, configuration, case, labelled)
        for case in cases
        for configuration in read_plan(plans).configurations
        for labelled in (True, False)
    ]


def run_all(run_peer: RunPeer, jobs: list[Job], folder: Path) -> dict[Path, list[tuple[Job, Path, Any]]]:
    """Job, file of arrays and the rest of what nnunetv2 answers, by data set."""
    asked = []
    for job in jobs:
        case = load_dataset(job.dataset).cases[job.case]
        label = str(case.label) if job.labelled else None
        described = {"plans": str(job.plans), "configuration": job.configuration}
        images = [str(image) for image in case.images]
        asked.append({"images": images, "label": label, "dataset": str(job.dataset / "dataset.json"), **described})
    answers = run_peer("peer_preprocessing.py", asked, raw=folder, preprocessed=folder / "theirs")
    found: dict[Path, list[tuple[Job, Path, Any]]] = {}
    for number, (job, answer) in enumerate(zip(jobs, answers, strict=True)):
        found.setdefault(job.dataset, []).append((job, folder / "theirs" / f"{number}.npz", answer))
    return found


def dataset_of(number: int) -> str:
    return f"Dataset{601 + number}_Phantom"


@pytest.fixture(scope="module")
def phantoms(run_peer: RunPeer, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, list[tuple[Job, Path, Any]]]:
    folder = tmp_path_factory.mktemp("phantoms")
    jobs = []
    for number, kind in enumerate(KINDS.values()):
        name = dataset_of(number)
        raw = kind.write(folder / "raw" / name)
        cases = list(load_dataset(raw).cases)[:2]
        jobs += jobs_of(raw, planned(folder / "raw", name, folder / "ours", memory_gb=kind.memory_gb), cases)
        spacing = [each * f for each, f in zip(kind.look.spacing, OTHER_SPACING, strict=True)]
        if kind.look.shape[0] == 1:
            spacing[0] = kind.look.spacing[0]
        plans = planned(folder / "raw", name, folder / "ours", spacing=spacing, plans_name="other")
        jobs += jobs_of(raw, plans, cases[-1:])
    return run_all(run_peer, jobs, folder)


@pytest.mark.parametrize("number", range(len(KINDS)), ids=list(KINDS))
def test_phantoms(number: int, phantoms: dict[Path, list[tuple[Job, Path, Any]]], parity: Parity) -> None:
    (done,) = (each for dataset, each in phantoms.items() if dataset.name == dataset_of(number))
    for job, file, answer in done:
        compare(job, file, answer, partial(parity, section="Preprocessing"), "phantoms")


def test_real_data(real_dataset: str, shared: Path, run_peer: RunPeer, tmp_path: Path, parity: Parity) -> None:
    raw = shared / "datasets" / real_dataset
    cases = list(load_dataset(raw).cases)
    jobs = jobs_of(raw, planned(raw.parent, real_dataset, tmp_path / "ours"), [cases[0], cases[-1]])
    for job, file, answer in run_all(run_peer, jobs, tmp_path)[raw]:
        compare(job, file, answer, partial(parity, section="Preprocessing"), "data sets")


def compare(job: Job, file: Path, answer: Any, record: Parity, what: str) -> None:
    raw, plans = load_dataset(job.dataset), read_plan(job.plans)
    case, reader = raw.cases[job.case], REGISTRY.build("readers", plans.reader)
    image = read_image(reader, case, raw.description.num_channels)
    labels = read_labels(reader, case.label) if job.labelled and case.label is not None else None
    data, target, properties = preprocess_image(image, labels, plans, plans.configurations[job.configuration], REGISTRY)
    with np.load(file) as arrays:
        expected, expected_target = arrays["data"], arrays["target"]
    where = f"{job.dataset.name} {job.case} {job.configuration}"
    assert data.shape == expected.shape, where

    theirs = answer["properties"]
    cropping = [key for key in theirs if key != "spacing"]
    differing = [key for key in cropping if np.asarray(properties[key]).tolist() != theirs[key]]
    assert not differing, (where, properties, theirs)
    record(f"{what}: bounding boxes and shapes around cropping that differ", 1, len(differing), 0)
    spacing = np.abs(np.array(properties["spacing"]) / theirs["spacing"] - 1).max()
    record(f"{what}: spacings, relative difference", 1, float(spacing), 1e-6)
    range_of_values = float(np.ptp(expected)) or 1.0
    far = float(np.abs(data - expected).max()) / range_of_values
    record(f"{what}: images, difference in their range", 1, far, 1e-5)
    if target is not None:
        share = float(np.mean(target != expected_target))
        record(f"{what}: labels, share of voxels that differ", 1, share, 1e-4)
        counts = {str(key): len(voxels) for key, voxels in class_locations(target, raw.description.labels).items()}
        assert counts == answer["counts"], where
        record(f"{what}: classes and regions with another number of sampled locations", len(counts), 0, 0)
