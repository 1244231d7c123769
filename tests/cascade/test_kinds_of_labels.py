"""Regions, sparse annotation and both, through both stages of a cascade: trained, predicted and evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from segplug.kernel import Kernel
from segplug.model import TrainedFold
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.evaluation import SUMMARY, read_summary
from segplug.runtime.files import read_json
from segplug.runtime.patch_sampling import annotated_key
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.preprocessed_cases import open_store
from segplug.runtime.project import Project
from segplug.runtime.stage_predictions import StagePredictions
from segplug.runtime.workspace import Workspace
from segplug.stages.evaluate import evaluate
from segplug.stages.predict import predict_folder
from segplug.stages.train import train
from segplug.testing import Phantom

NAME, PLANS = "Dataset611_Cascade", "tinyPlans"
IGNORE = 3
KINDS = {
    "regions": Phantom(shape=(18, 22, 20), channels=("CT",), regions=True),
    "sparse": Phantom(shape=(18, 22, 20), channels=("CT",), ignored=0.5),
    "sparse regions": Phantom(shape=(18, 22, 20), channels=("CT",), regions=True, ignored=0.5),
}


@dataclass(frozen=True)
class Trained:
    """A data set of one kind with what was trained on it."""

    kind: str
    root: Path
    low: TrainedFold
    cascade: TrainedFold

    @property
    def regions(self) -> bool:
        return "regions" in self.kind

    @property
    def sparse(self) -> bool:
        return "sparse" in self.kind

    def project(self) -> Project:
        workspace = Workspace(self.root / "raw", self.root / "preprocessed", self.root / "results")
        return Project(workspace, Kernel(discover=False), workers=0)


@pytest.fixture(scope="module", params=KINDS)
def trained(
    request: pytest.FixtureRequest, prepare: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    root = prepare(tmp_path_factory.mktemp("kind"), KINDS[request.param])
    workspace = Workspace(root / "raw", root / "preprocessed", root / "results")
    with Project(workspace, Kernel(discover=False), workers=0) as project:
        low, cascade = (
            train(project, NAME, configuration, "all", plans_name=PLANS)
            for configuration in ("3d_lowres", "3d_cascade_fullres")
        )
    return Trained(request.param, root, low, cascade)


def test_outputs_are_classes_or_regions_and_inputs_every_label(trained: Trained) -> None:
    weights = torch.load(trained.cascade.checkpoint(), weights_only=True)["network_weights"]
    assert weights["encoder.stages.0.0.convs.0.conv.weight"].shape[1] == 1 + 2  # an image, two organs
    assert weights["decoder.seg_layers.0.weight"].shape[0] == (2 if trained.regions else 3)


def test_class_locations(trained: Trained) -> None:
    with trained.project() as project:
        plan = read_plan(project.workspace.plans_file(NAME, PLANS))
        store = open_store(project, NAME, plan.configurations["3d_cascade_fullres"])
        case = store.open("phantom_000")
        _, target = case.read((0, 0, 0), case.shape)
    classes = {(1, 2), 2} if trained.regions else {1, 2}
    # a region of one label is kept as it stands in dataset.json, [2]
    found = {key[0] if isinstance(key, tuple) and len(key) == 1 else key for key in case.locations}
    assert found == classes | ({annotated_key((0, 1, 2))} if trained.sparse else set())
    assert (IGNORE in target) == trained.sparse
    for voxels in case.locations.values():
        assert IGNORE not in target[0][tuple(voxels.T)]


def test_what_validation_writes_and_counts(trained: Trained) -> None:
    for fold in (trained.low, trained.cascade):
        summary = read_summary(fold.validation_folder / SUMMARY)
        assert [str(key) for key in summary.mean] == (["(1, 2)", "(2,)"] if trained.regions else ["1", "2"])
        for case in summary.cases:
            labels = sitk.GetArrayFromImage(sitk.ReadImage(str(case.prediction)))
            reference = sitk.GetArrayFromImage(sitk.ReadImage(str(case.reference)))
            assert set(np.unique(labels)) <= {0, 1, 2}
            for scores in case.metrics.values():
                assert sum(scores[name] for name in ("TP", "FP", "FN", "TN")) == (reference != IGNORE).sum()


def test_what_goes_to_the_next_stage_are_labels(trained: Trained) -> None:
    predictions = StagePredictions.of(trained.low.model_folder, "3d_cascade_fullres")
    with trained.project() as project:
        plan = read_plan(project.workspace.plans_file(NAME, PLANS))
        store = open_store(project, NAME, plan.configurations["3d_cascade_fullres"])
        for case in store.cases():
            shape = store.open(case).shape
            assert set(np.unique(predictions.read(case, (0, 0, 0), shape))) <= {0, 1, 2}


def test_new_images(trained: Trained, tmp_path: Path) -> None:
    images, labels = (trained.root / "raw" / NAME / part for part in ("imagesTs", "labelsTs"))
    with trained.project() as project:
        predict_folder(project, images, tmp_path, trained.cascade.model_folder)
        file = trained.cascade.model_folder / "dataset.json"
        result = evaluate(project, labels, tmp_path, parse_description(read_json(file), NAME, file))
    assert len(result.cases) == 1
    for scores in result.cases[0].metrics.values():
        assert 0 <= scores["Dice"] <= 1
