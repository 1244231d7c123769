"""A cascade from training to prediction: stages in order, out-of-fold predictions between them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from segplug.errors import DataError, UsageError
from segplug.kernel import Kernel
from segplug.model import ComponentRef, Labels
from segplug.protocols import AugmentationContext, BatchRequest, PredictionSettings
from segplug.runtime.batch_loader import open_batches
from segplug.runtime.cascade import in_order
from segplug.runtime.plan_codec import read_plan, write_plan
from segplug.runtime.preprocessed_cases import open_store
from segplug.runtime.project import Project
from segplug.runtime.stage_predictions import StagePredictions
from segplug.runtime.workspace import Workspace
from segplug.stages.predict import predict_folder, predict_images
from segplug.stages.run import RunResult, run
from segplug.stages.train import train
from segplug_builtin.augmentations.nnunet import NNUNetAugmentation
from segplug_builtin.augmentations.none import NoAugmentation
from segplug_builtin.readers import read_simpleitk

NAME, PLANS = "Dataset611_Cascade", "tinyPlans"
LOW, CASCADE = "3d_lowres", "3d_cascade_fullres"
FP32 = PredictionSettings(device="cpu", precision="fp32")
MakeProject = Callable[..., Project]


@pytest.fixture(scope="session")
def finished(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """Results of `run` with the cascade's fold 0."""
    from segplug.stages.run import Planning

    results = tmp_path_factory.mktemp("finished")
    with Project(
        Workspace(chain / "raw", chain / "preprocessed", results), Kernel(discover=False), workers=0
    ) as project:
        return results, run(project, NAME, configurations=[CASCADE], folds=[0], planning=Planning(plans_name=PLANS))


def model_folder(results: Path, configuration: str) -> Path:
    return results / NAME / f"nnUNetTrainer__{PLANS}__{configuration}"


def test_run_trains_every_fold_of_what_the_cascade_builds_on(finished: tuple[Path, RunResult]) -> None:
    _, result = finished
    assert [(f.configuration, f.trained.fold) for f in result.folds] == [
        *((LOW, fold) for fold in range(4)),
        (CASCADE, 0),
    ]
    content = torch.load(result.folds[-1].trained.checkpoint(), weights_only=True)
    (first,) = [w for name, w in content["network_weights"].items() if name == "encoder.stages.0.0.convs.0.conv.weight"]
    assert first.shape[1] == 1 + 2  # the image, and a channel per organ
    assert len(result.folds[-1].evaluation.cases) == 1


def test_predictions_for_the_next_stage_lie_on_its_grid(finished: tuple[Path, RunResult], chain: Path) -> None:
    results, result = finished
    predictions = StagePredictions.of(model_folder(results, LOW), CASCADE)
    workspace = Workspace(chain / "raw", chain / "preprocessed", results)
    with Project(workspace, Kernel(discover=False), workers=0) as project:
        store = open_store(project, NAME, result.plan.configurations[CASCADE])
        for fold in result.folds[:4]:
            for case in fold.split.val:
                stored = store.open(case)
                assert predictions.fits(case, stored.shape)
                assert predictions.fold(case) == fold.trained.fold
                labels = predictions.read(case, (0, 0, 0), stored.shape)
                assert set(np.unique(labels)) <= {0, 1, 2}
    names = {path.name for path in predictions.folder.iterdir()}
    assert names == {".segplug", *(f"phantom_{number:03d}.b2nd" for number in range(4))}


def test_calling_again_keeps_everything(finished: tuple[Path, RunResult], chain: Path) -> None:
    from segplug.stages.run import Planning

    results, _ = finished
    with Project(
        Workspace(chain / "raw", chain / "preprocessed", results), Kernel(discover=False), workers=0
    ) as project:
        again = run(project, NAME, configurations=[CASCADE], folds=[0], planning=Planning(plans_name=PLANS))
    assert all(fold.kept for fold in again.folds)


@pytest.fixture
def copied(finished: tuple[Path, RunResult], tmp_path: Path) -> Path:
    """A copy of the results, to be spoilt."""
    return shutil.copytree(finished[0], tmp_path / "results")


def test_without_predictions_the_commands_are_named(make_project: MakeProject, chain: Path, copied: Path) -> None:
    project = make_project(chain, copied)
    splits = json.loads((chain / "preprocessed" / NAME / "splits_final.json").read_text())
    (case,) = splits[2]["val"]
    StagePredictions.of(model_folder(copied, LOW), CASCADE).discard(case)
    with pytest.raises(DataError) as error:
        train(project, NAME, CASCADE, 1, plans_name=PLANS)
    command = f"segplug train {NAME} {LOW} 2 --plans-name {PLANS} --continue"
    assert str(error.value).endswith(
        f"for 1 cases of the fold: {case}. The validation of {LOW} writes them. Run: {command}"
    )
    train(project, NAME, LOW, 2, plans_name=PLANS, continue_=True)  # trains no more, only predicts
    train(project, NAME, CASCADE, 1, plans_name=PLANS)


def test_predictions_of_another_shape_are_not_trained_on(make_project: MakeProject, chain: Path, copied: Path) -> None:
    predictions = StagePredictions.of(model_folder(copied, LOW), CASCADE)
    predictions.write("phantom_001", np.zeros((4, 5, 6), np.uint8), (16, 16, 16), {})
    with pytest.raises(DataError, match=r"of another shape, for 1 cases of the fold: phantom_001\."):
        train(make_project(chain, copied), NAME, CASCADE, 1, plans_name=PLANS)


def test_other_predictions_end_a_training_that_is_continued(
    make_project: MakeProject, chain: Path, copied: Path
) -> None:
    project = make_project(chain, copied)
    predictions = StagePredictions.of(model_folder(copied, LOW), CASCADE)
    labels = predictions.read("phantom_001", (0, 0, 0), _shape(project, "phantom_001"))
    predictions.write("phantom_001", 2 - labels, (16, 16, 16), {})
    with pytest.raises(DataError, match=f"predictions of {LOW}"):
        train(project, NAME, CASCADE, 0, plans_name=PLANS, continue_=True, epochs=4)


def _shape(project: Project, case: str) -> tuple[int, ...]:
    plan = read_plan(project.workspace.plans_file(NAME, PLANS))
    return open_store(project, NAME, plan.configurations[CASCADE]).open(case).shape


def test_fold_all_does_not_replace_what_others_predicted(make_project: MakeProject, chain: Path, copied: Path) -> None:
    project = make_project(chain, copied)
    predictions = StagePredictions.of(model_folder(copied, LOW), CASCADE)
    predictions.discard("phantom_003")
    before = predictions.state([f"phantom_{n:03d}" for n in range(3)])
    train(project, NAME, LOW, "all", plans_name=PLANS)
    assert predictions.state(list(before)) == before
    assert predictions.fold("phantom_003") == "all"


def test_cases_that_are_not_preprocessed_are_told(make_project: MakeProject, chain: Path, tmp_path: Path) -> None:
    data = shutil.copytree(chain, tmp_path / "data")
    plan = read_plan(data / "preprocessed" / NAME / f"{PLANS}.json")
    shutil.rmtree(data / "preprocessed" / NAME / plan.configurations[CASCADE].data_identifier)
    with pytest.warns(UserWarning, match=f"1 cases are not predicted for {CASCADE}, .* run: segplug preprocess {NAME}"):
        trained = train(make_project(data), NAME, LOW, 0, plans_name=PLANS)
    assert (trained.validation_folder / "summary.json").is_file()


def test_predicting_by_itself_in_two_steps_and_in_memory(
    make_project: MakeProject, finished: tuple[Path, RunResult], chain: Path, tmp_path: Path
) -> None:
    project, images = make_project(chain), chain / "raw" / NAME / "imagesTs"
    model = model_folder(finished[0], CASCADE)
    predict_folder(
        project, images, tmp_path / "chain", model, folds=[0], settings=FP32, keep_previous=tmp_path / "kept"
    )
    low = model_folder(finished[0], LOW)
    predict_folder(project, images, tmp_path / "first", low, folds=[0], settings=FP32)
    predict_folder(
        project, images, tmp_path / "second", model, folds=[0], settings=FP32, previous_stage=tmp_path / "first"
    )
    name = "phantom_004.nii.gz"
    by_itself, kept, first, second = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / folder / name)))
        for folder in ("chain", f"kept/{LOW}", "first", "second")
    )
    np.testing.assert_array_equal(kept, first)
    np.testing.assert_array_equal(by_itself, second)
    image = read_simpleitk([images / "phantom_004_0000.nii.gz"])
    (alone,) = predict_images(project, [image], model, folds=[0], settings=FP32)
    np.testing.assert_array_equal(alone.labels.array, by_itself)
    (given,) = predict_images(
        project, [image], model, folds=[0], settings=FP32, previous=[Labels(first, image.geometry)]
    )
    np.testing.assert_array_equal(given.labels.array, by_itself)
    again = predict_folder(project, images, tmp_path / "chain", model, folds=[0], settings=FP32, continue_=True)
    assert again.kept == ("phantom_004",)
    described = json.loads((tmp_path / "second" / "predict_from_raw_data_args.json").read_text())
    assert described["folder_with_segs_from_prev_stage"] == str(tmp_path / "first")


def test_the_previous_stage_matters(make_project: MakeProject, finished: tuple[Path, RunResult], chain: Path) -> None:
    """Else nothing here would show that its labels reach the network."""
    image = read_simpleitk([chain / "raw" / NAME / "imagesTs" / "phantom_004_0000.nii.gz"])
    full = replace(FP32, save_probabilities=True)
    nothing, all_one = (Labels(np.full(image.shape, v, np.uint8), image.geometry) for v in (0, 1))
    model = model_folder(finished[0], CASCADE)
    first, second = predict_images(make_project(chain), [image] * 2, model, settings=full, previous=[nothing, all_one])
    assert first.probabilities is not None
    assert second.probabilities is not None
    assert np.abs(first.probabilities - second.probabilities).max() > 1e-3


def test_what_is_wrong_with_the_previous_stage_is_told(
    make_project: MakeProject, finished: tuple[Path, RunResult], chain: Path, tmp_path: Path
) -> None:
    project, images = make_project(chain), chain / "raw" / NAME / "imagesTs"
    model, low = model_folder(finished[0], CASCADE), model_folder(finished[0], LOW)
    with pytest.raises(UsageError, match=f"{LOW} takes no predictions of a previous stage"):
        predict_folder(project, images, tmp_path / "out", low, previous_stage=tmp_path)
    with pytest.raises(UsageError, match=r"nowhere: no such folder; expected the predictions of 3d_lowres"):
        predict_folder(project, images, tmp_path / "out", model, previous_stage=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"phantom_004\.nii\.gz: no such file; expected the label map that 3d_lowres"):
        predict_folder(project, images, tmp_path / "out", model, previous_stage=tmp_path / "empty")
    (tmp_path / "empty" / "3d_lowres").mkdir()  # as --keep-previous leaves it
    with pytest.raises(DataError, match=r"Give .*empty/3d_lowres, or leave --previous-stage out"):
        predict_folder(project, images, tmp_path / "out", model, previous_stage=tmp_path / "empty")
    labels = sitk.ReadImage(str(chain / "raw" / NAME / "labelsTs" / "phantom_004.nii.gz"))
    labels.SetSpacing((3.0, 3.0, 3.0))
    (tmp_path / "moved").mkdir()
    sitk.WriteImage(labels, str(tmp_path / "moved" / "phantom_004.nii.gz"))
    with pytest.raises(DataError, match=r"expected .* Give the folder with the previous stage's predictions"):
        predict_folder(project, images, tmp_path / "out", model, previous_stage=tmp_path / "moved")
    lonely = shutil.copytree(model, tmp_path / model.name)
    with pytest.raises(UsageError, match=r"whose model is not at .*3d_lowres\. .* --previous-stage DIR"):
        predict_folder(project, images, tmp_path / "out", lonely)


def test_batches_hold_the_previous_stage_where_the_image_is(
    finished: tuple[Path, RunResult], chain: Path, make_project: MakeProject
) -> None:
    project, (results, result) = make_project(chain), finished
    configuration = result.plan.configurations[CASCADE]
    store = open_store(project, NAME, configuration)
    predictions = StagePredictions.of(model_folder(results, LOW), CASCADE)
    context = AugmentationContext(configuration.patch_size, 1, labels=(1, 2))
    request = BatchRequest(ComponentRef("nnunet"), batch_size=2, epochs=1, iterations=4, val_iterations=0)
    cases = store.cases()

    def batches(previous: StagePredictions | None, kind: type, workers: int = 0) -> list[torch.Tensor]:
        augmentation = kind(context if previous is not None else replace(context, labels=()))
        with open_batches(
            store, cases, cases, request,
            augmentation=augmentation, validation=augmentation, patch_size=configuration.patch_size,
            seed=1, fold=0, workers=workers, previous=previous, previous_labels=(1, 2) if previous is not None else (),
        ) as made:  # fmt: skip
            return [(batch.data, batch.cases) for batch in made]  # type: ignore[misc]

    plain, stacked = batches(None, NoAugmentation), batches(predictions, NoAugmentation)
    for (image, names), (data, _) in zip(plain, stacked, strict=True):
        assert data.shape[1] == 3
        torch.testing.assert_close(data[:, :1], image)
        for sample, name in enumerate(names):
            whole, _ = store.open(name).read((0, 0, 0), store.open(name).shape)
            labels = predictions.read(name, (0, 0, 0), store.open(name).shape)
            # the patch's first inner voxel is found in the image by its value
            inner = torch.nonzero(image[sample, 0])[0]
            (at,) = np.argwhere(whole[0] == float(image[sample, 0][tuple(inner)]))[:1]
            value = labels[tuple(at)]
            assert data[sample, 1:, *inner].tolist() == [float(value == 1), float(value == 2)]
    one, two = (batches(predictions, NNUNetAugmentation, workers) for workers in (0, 2))
    for (a, _), (b, _) in zip(one, two, strict=True):
        assert torch.equal(a, b)
        assert set(a[:, 1:].unique().tolist()) <= {0.0, 1.0}
        assert a[:, 1:].sum(1).max() <= 1


def test_chains_of_any_length(make_project: MakeProject, chain: Path, tmp_path: Path) -> None:
    """Three stages, the last of them hand-made, which only itself says what it builds on."""
    data = shutil.copytree(chain, tmp_path / "data")
    file = data / "preprocessed" / NAME / f"{PLANS}.json"
    plan = read_plan(file)
    third = replace(plan.configurations[CASCADE], name="third", previous_stage=CASCADE, as_written={})
    write_plan(file, replace(plan, configurations={**plan.configurations, "third": third}))
    assert in_order(read_plan(file), ["third", "3d_fullres"]) == [LOW, CASCADE, "third", "3d_fullres"]
    project = make_project(data)
    for configuration in (LOW, CASCADE):
        for fold in range(4):
            train(project, NAME, configuration, fold, plans_name=PLANS, epochs=1)
    trained = train(project, NAME, "third", 1, plans_name=PLANS, epochs=1)
    images = data / "raw" / NAME / "imagesTs"
    kept = tmp_path / "kept"
    predict_folder(project, images, tmp_path / "out", trained.model_folder, folds=[1], keep_previous=kept)
    assert sorted(path.name for path in kept.iterdir()) == sorted([LOW, CASCADE])


def test_a_circle_is_told(chain: Path, tmp_path: Path) -> None:
    plan = read_plan(chain / "preprocessed" / NAME / f"{PLANS}.json")
    low = replace(plan.configurations[LOW], previous_stage=CASCADE)
    with pytest.raises(DataError, match=f"leads in a circle: {LOW} -> {CASCADE} -> {LOW}"):
        in_order(replace(plan, configurations={**plan.configurations, LOW: low}), [LOW])
