"""Made-up cross-validations: what trained models leave behind, without training any."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from segplug.kernel import Kernel
from segplug.model import LabelSet
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.splits import find_split, read_splits
from segplug.runtime.workspace import Workspace
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.testing import Phantom, write_phantom_dataset

NAME = "Dataset502_MadeUp"
KINDS = {
    "labels": Phantom(shape=(10, 22, 20), classes=3),
    "single": Phantom(shape=(10, 22, 20), classes=1),
    "regions": Phantom(shape=(10, 22, 20), classes=3, regions=True),
    "ignore": Phantom(shape=(10, 22, 20), classes=2, ignored=0.3),
}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project without data, that works in this process."""
    roots = (tmp_path / part for part in ("raw", "preprocessed", "results"))
    with Project(Workspace(*roots), Kernel(discover=False), workers=0) as opened:
        yield opened


MadeUp = Callable[..., list[Path]]


@pytest.fixture
def made_up(project: Project) -> MadeUp:
    """Writes a planned data set and models of it; returns the model folders. Arguments as for `write_models`."""

    def make(
        kind: str = "labels", *, cases: int = 6, configurations: Sequence[str] = ("2d", "3d_fullres"), **options: Any
    ):
        raw = project.workspace.raw_folder(f"{project.workspace.raw}/{NAME}")
        write_phantom_dataset(raw, KINDS[kind], cases=cases)
        fingerprint(project, NAME)
        plan(project, NAME)
        shutil.copytree(raw / "labelsTr", project.workspace.reference_folder(NAME))
        file = project.workspace.plans_file(NAME, "nnUNetPlans")
        plans = json.loads(file.read_text())
        for configuration in configurations:
            plans["configurations"].setdefault(configuration, {"inherits_from": "3d_fullres"})
        file.write_text(json.dumps(plans))
        return write_models(project, configurations, **options)

    return make


def write_models(
    project: Project, configurations: Sequence[str], *, folds: int = 2, seed: int = 0, islands: float = 1.0
) -> list[Path]:
    """Model folders with plans.json, dataset.json and the validation of each fold: label maps and probabilities.

    Args:
        islands: how many separate spots of each class are predicted wrongly per case, on average.
    """
    raw = load_dataset(project.workspace.raw_folder(NAME))
    labels = raw.description.labels
    find_split(project, NAME, list(raw.cases), 0)
    splits = read_splits(project.workspace.splits_file(NAME))
    random = np.random.default_rng(seed)
    made = []
    for configuration in configurations:
        folder = project.workspace.model_folder(NAME, "nnUNetTrainer", "nnUNetPlans", configuration)
        folder.mkdir(parents=True)
        shutil.copy(project.workspace.plans_file(NAME, "nnUNetPlans"), folder / "plans.json")
        shutil.copy(project.workspace.raw_folder(NAME) / "dataset.json", folder / "dataset.json")
        for fold in range(folds):
            validation = folder / f"fold_{fold}" / "validation"
            validation.mkdir(parents=True)
            for case in splits[fold].val:
                reference = sitk.ReadImage(str(project.workspace.reference_folder(NAME) / f"{case}.nii.gz"))
                probabilities = make_probabilities(sitk.GetArrayFromImage(reference), labels, random, islands)
                np.savez_compressed(validation / f"{case}.npz", probabilities=probabilities)
                image = sitk.GetImageFromArray(to_labels(probabilities, labels))
                image.CopyInformation(reference)
                sitk.WriteImage(image, str(validation / f"{case}.nii.gz"))
            write_stub_summary(validation, [f"{case}.nii.gz" for case in splits[fold].val])
        made.append(folder)
    return made


def write_stub_summary(folder: Path, files: Sequence[str]) -> None:
    cases = [{"reference_file": name, "prediction_file": str(folder / name), "metrics": {}} for name in files]
    content = {"metric_per_case": cases, "mean": {}, "foreground_mean": {}}
    (folder / "summary.json").write_text(json.dumps(content))


def make_probabilities(
    reference: NDArray[Any], labels: LabelSet, random: np.random.Generator, islands: float
) -> NDArray[np.float32]:
    """What a network might say: the reference moved a little, with noise, and with spots where nothing is."""
    moved = np.roll(reference, random.integers(-1, 2, 3), (0, 1, 2))
    moved[moved == labels.ignore_label] = 0
    for label in labels.foreground_labels:
        for _ in range(random.poisson(islands)):
            corner = [int(random.integers(0, n - 3)) for n in reference.shape]
            moved[tuple(slice(c, c + 2) for c in corner)] = label
    classes = labels.regions if labels.has_regions else labels.all_labels
    masks = np.stack([np.isin(moved, c) for c in classes])
    logits = 4.0 * masks - 2.0 + random.normal(0, 1.3, masks.shape)
    if labels.has_regions:
        return (1 / (1 + np.exp(-logits))).astype(np.float32)
    shares = np.exp(logits)
    return (shares / shares.sum(0)).astype(np.float32)


def to_labels(probabilities: NDArray[np.float32], labels: LabelSet) -> NDArray[np.uint8]:
    """The slow and plain way, for comparison too."""
    if not labels.has_regions:
        return np.array(labels.all_labels, np.uint8)[probabilities.argmax(0)]
    result = np.zeros(probabilities.shape[1:], np.uint8)
    for channel, value in zip(probabilities, labels.regions_class_order, strict=True):
        result[channel > 0.5] = value
    return result
