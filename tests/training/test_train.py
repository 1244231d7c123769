"""Training one fold, from preprocessed cases to the validation's summary."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from segplug import Component
from segplug.errors import DataError, PluginError, SegplugError, UsageError
from segplug.kernel import hookimpl
from segplug.model import ComponentRef
from segplug.runtime.checkpoint import read_checkpoint
from segplug.stages.train import train

NAME, PLANS = "Dataset601_Phantom", "tinyPlans"
EPOCHS = 3


@pytest.fixture(scope="session")
def trained(prepared, tmp_path_factory):
    """One training whose results many tests look at."""
    from segplug.kernel import Kernel
    from segplug.runtime.project import Project
    from segplug.runtime.workspace import Workspace

    results = tmp_path_factory.mktemp("trained") / "results"
    listener = Listener()
    with Project(
        Workspace(prepared / "raw", prepared / "preprocessed", results), Kernel(discover=False), workers=0
    ) as project:
        project.kernel.register(listener, "listener")
        return train(project, NAME, "3d_fullres", 0, plans_name=PLANS), listener


class Listener:
    """Remembers what the training tells."""

    def __init__(self):
        self.reports, self.written, self.subjects, self.progress, self.predicted = [], [], [], [], []

    @hookimpl
    def segplug_epoch_finished(self, folder, report):
        self.reports.append((folder, report))

    @hookimpl
    def segplug_checkpoint_written(self, path, epoch):
        assert path.is_file()
        self.written.append((path.name, epoch))

    @hookimpl
    def segplug_stage_started(self, stage, subject, total):
        self.subjects.append((stage, subject, total))

    @hookimpl
    def segplug_stage_progress(self, stage, item, done, total):
        self.progress.append((stage, item, done, total))

    @hookimpl
    def segplug_case_predicted(self, case, prediction, path):
        self.predicted.append((case, path))


def run(project, **options):
    listener = Listener()
    project.kernel.register(listener, f"listener {id(listener)}")
    fold = options.pop("fold", 0)
    configuration = options.pop("configuration", "3d_fullres")
    return train(project, NAME, configuration, fold, plans_name=PLANS, **options), listener


def test_model_folder_has_nnunets_layout(trained, prepared):
    fold, _ = trained
    assert fold.folder.name == "fold_0"
    assert fold.model_folder.name == f"nnUNetTrainer__{PLANS}__3d_fullres"
    assert fold.model_folder.parent.name == NAME
    for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
        assert json.loads((fold.model_folder / name).read_text())
    names = {path.name for path in fold.folder.iterdir()}
    assert {"checkpoint_final.pth", "checkpoint_best.pth", "progress.png", "validation"} <= names
    assert "checkpoint_latest.pth" not in names  # nnU-Net's rule: `final` takes its place
    assert not [name for name in names if name.startswith(".partial")]
    split = json.loads((prepared / "preprocessed" / NAME / "splits_final.json").read_text())[0]
    assert {p.name for p in fold.validation_folder.glob("*.nii.gz")} == {f"{case}.nii.gz" for case in split["val"]}


def test_checkpoint_says_everything(trained):
    fold, _ = trained
    content = torch.load(fold.checkpoint("final"), weights_only=True)
    assert content["trainer_name"] == "nnUNetTrainer"
    assert content["current_epoch"] == EPOCHS
    assert content["init_args"]["configuration"] == "3d_fullres"
    assert content["init_args"]["fold"] == 0
    assert content["inference_allowed_mirroring_axes"] == (0, 1, 2)
    assert content["logging"].keys() == {
        *("mean_fg_dice", "ema_fg_dice", "dice_per_class_or_region", "train_losses", "val_losses", "lrs"),
        *("epoch_start_timestamps", "epoch_end_timestamps"),
    }
    assert {len(series) for series in content["logging"].values()} == {EPOCHS}
    extension = content["segplug"]
    assert extension["trainer"]["name"] == "short"
    assert extension["trainer"]["settings"]["iterations_per_epoch"] == 3
    assert extension["seed"] == 0
    kinds = {entry["kind"] for entry in extension["provenance"]}
    assert {"trainers", "losses", "optimizers", "schedules", "augmentations", "architectures", "readers"} <= kinds
    assert all(entry["plugin"] and entry["version"] for entry in extension["provenance"])


def test_events_and_log_tell_the_same(trained):
    fold, listener = trained
    reports = [report for _, report in listener.reports]
    assert [report.epoch for report in reports] == list(range(EPOCHS))
    assert {report.epochs for report in reports} == {EPOCHS}
    assert [folder for folder, _ in listener.reports] == [fold.folder] * EPOCHS
    latest = [epoch for name, epoch in listener.written if name == "checkpoint_latest.pth"]
    assert latest == [1, 2, 3]
    assert listener.written[-1] == ("checkpoint_final.pth", EPOCHS)
    assert ("train", f"{NAME} 3d_fullres fold 0", EPOCHS) in listener.subjects
    assert ("train", "epoch 3", 3, 3) in listener.progress
    assert [path for _, path in listener.predicted] == sorted(fold.validation_folder.glob("*.nii.gz"))
    logging = torch.load(fold.checkpoint("final"), weights_only=True)["logging"]
    assert logging["train_losses"] == [report.train_loss for report in reports]
    assert logging["dice_per_class_or_region"][-1] == pytest.approx(list(reports[-1].dice), nan_ok=True)
    (log,) = fold.folder.glob("training_log_*.txt")
    text = log.read_text()
    for report in reports:
        assert f"train_loss {report.train_loss:.4f}, val_loss {report.val_loss:.4f}" in text
    assert "trainer builtin:short" in text or "trainer segplug_builtin:short" in text


def test_ema_is_nnunets(trained):
    _, listener = trained
    reports = [report for _, report in listener.reports]
    expected = reports[0].mean_dice
    assert reports[0].ema_dice == expected
    for report in reports[1:]:
        expected = 0.9 * expected + 0.1 * report.mean_dice
        assert report.ema_dice == pytest.approx(expected)


def test_validation_is_scored_in_the_raw_geometry(trained, prepared):
    fold, _ = trained
    summary = json.loads((fold.validation_folder / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 1
    for path in fold.validation_folder.glob("*.nii.gz"):
        image = sitk.ReadImage(str(prepared / "raw" / NAME / "imagesTr" / path.name.replace(".nii", "_0000.nii")))
        found = sitk.ReadImage(str(path))
        assert found.GetSize() == image.GetSize()
        assert found.GetSpacing() == image.GetSpacing()
        reference = sitk.GetArrayFromImage(sitk.ReadImage(str(prepared / "raw" / NAME / "labelsTr" / path.name)))
        values = sitk.GetArrayFromImage(found)
        entry = next(e for e in summary["metric_per_case"] if Path(e["prediction_file"]).name == path.name)
        assert entry["metrics"]["1"]["TP"] == int(np.sum((values == 1) & (reference == 1)))


def test_progress_png_is_a_picture(trained):
    from PIL import Image

    fold, _ = trained
    with Image.open(fold.folder / "progress.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(make_project, trained, same_weights, workers):
    fold, _ = run(make_project(workers=workers))
    assert same_weights(fold.checkpoint("final"), trained[0].checkpoint("final"))


def test_seed_and_fold_change_everything(make_project, trained, same_weights):
    for options in ({"seed": 1}, {"fold": 1}):
        fold, _ = run(make_project(results=str(options)), **options)
        assert not same_weights(fold.checkpoint("final"), trained[0].checkpoint("final"))


def test_the_network_learns(make_project):
    _, listener = run(make_project(), epochs=4, overrides=["trainer.iterations_per_epoch=10"])
    first, last = (listener.reports[i][1] for i in (0, -1))
    assert last.train_loss < first.train_loss - 0.2
    assert max(last.dice) > 0.2


@pytest.mark.filterwarnings("ignore:--precision bf16:UserWarning")  # of CPUs without it
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision(make_project, precision):
    fold, listener = run(make_project(), precision=precision, epochs=1)
    extension = read_checkpoint(fold.checkpoint()).extension
    assert extension["precision"] == precision
    assert math.isfinite(listener.reports[0][1].train_loss)


def test_overrides_reach_the_training(make_project):
    overrides = [
        "trainer.val_iterations_per_epoch=0",
        "trainer.optimizer=sgd",
        "trainer.optimizer.momentum=0.5",
        "trainer.schedule=poly",
        "trainer.lr=0.02",
        "trainer.gradient_clip=none",
        "trainer.deep_supervision=false",
        "trainer.augmentation=none",
        "trainer.loss.smooth=0.1",
        "trainer.batch_size=1",
    ]
    fold, listener = run(make_project(), overrides=overrides, epochs=2)
    assert [report.learning_rate for _, report in listener.reports] == [0.02, 0.02 * 0.5**0.9]
    assert math.isnan(listener.reports[0][1].val_loss)
    content = torch.load(fold.checkpoint(), weights_only=True)
    assert content["optimizer_state"]["param_groups"][0]["momentum"] == 0.5
    assert content["segplug"]["trainer"]["settings"]["loss"] == {"name": "dice_ce", "options": {"smooth": 0.1}}
    assert content["inference_allowed_mirroring_axes"] is None  # nothing was mirrored in training
    assert content["_best_ema"] is None
    assert not fold.checkpoint("best").is_file()


def test_all_trains_and_validates_on_every_case(make_project, prepared):
    fold, listener = run(make_project(), fold="all", epochs=1)
    assert fold.folder.name == "fold_all"
    assert len(listener.predicted) == 5


def test_regions_with_ignore_label(make_project, prepared_sparse_regions):
    fold, listener = run(make_project(data=prepared_sparse_regions))
    assert len(listener.reports[0][1].dice) == 2
    assert len(json.loads((fold.validation_folder / "summary.json").read_text())["mean"]) == 2


def test_2d(make_project, prepared_2d):
    fold, listener = run(make_project(data=prepared_2d), configuration="2d")
    assert all(math.isfinite(report.train_loss) for _, report in listener.reports)
    assert (fold.validation_folder / "summary.json").is_file()


# --- plugins -------------------------------------------------------------------------------------------------------


class Strangers:
    """A plugin with a loss that knows nothing of segplug, and a trainer of its own."""

    @staticmethod
    @hookimpl
    def segplug_losses():
        yield Component("stranger", StrangersLoss, "a loss")
        yield Component("nan", lambda: lambda logits, target: logits.sum() * float("nan"), "a broken loss")

    @staticmethod
    @hookimpl
    def segplug_trainers():
        yield Component("lazy", LazyTrainer, "saves the initial weights")
        yield Component("idle", IdleTrainer, "does nothing at all")
        yield Component("no_trainer", dict, "is no trainer")


class StrangersLoss(torch.nn.Module):
    def __init__(self, gamma=1.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, target):
        assert logits.dtype == torch.float32
        return self.gamma * torch.nn.functional.cross_entropy(logits, target[:, 0])


class LazyTrainer:
    def train(self, task):
        task.save("final", {"optimizer_state": {}, "current_epoch": 0, "_best_ema": None}, wait=True)


class IdleTrainer:
    def train(self, task):
        pass


@pytest.fixture
def with_strangers(make_project):
    project = make_project()
    project.kernel.register(Strangers(), "strangers")
    return project


def test_a_strangers_loss(with_strangers):
    fold, _ = run(with_strangers, overrides=["trainer.loss=stranger", "trainer.loss.gamma=2"], epochs=1)
    provenance = read_checkpoint(fold.checkpoint()).extension["provenance"]
    (entry,) = [entry for entry in provenance if entry["kind"] == "losses"]
    assert (entry["name"], entry["plugin"]) == ("stranger", "strangers")


def test_a_loss_option_that_does_not_exist(with_strangers):
    with pytest.raises(UsageError, match=r"stranger.*gama.*It takes: gamma"):
        run(with_strangers, overrides=["trainer.loss=stranger", "trainer.loss.gama=2"])


def test_a_strangers_trainer_has_its_own_folder(with_strangers):
    fold, _ = run(with_strangers, trainer="lazy")
    assert fold.model_folder.name == f"lazy__{PLANS}__3d_fullres"
    # nnunetv2 can build the network, by its own trainer
    assert read_checkpoint(fold.checkpoint()).trainer == "nnUNetTrainer"
    with pytest.raises(UsageError, match="trainer 'lazy' has no epochs"):
        run(with_strangers, trainer="lazy", epochs=3)


def test_a_trainer_that_leaves_nothing(with_strangers):
    with pytest.raises(PluginError, match=r"'idle' ended without saving checkpoint_final.pth"):
        run(with_strangers, trainer="idle")


def test_a_component_that_is_no_trainer(with_strangers):
    with pytest.raises(PluginError, match=r"'no_trainer' .* is no Trainer: it has no method 'train'"):
        run(with_strangers, trainer="no_trainer")


def test_a_loss_that_is_not_finite_ends_the_training(with_strangers):
    with pytest.raises(SegplugError, match=r"the loss became nan in epoch 1.*Lower trainer.lr"):
        run(with_strangers, overrides=["trainer.loss=nan"])
    assert not list((with_strangers.workspace.results).rglob("checkpoint_*.pth"))


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": "x"}, "fold 'x': expected a number from 0 on, or all"),
        ({"fold": "-1"}, "fold '-1'"),
        ({"configuration": "3d_fullress"}, "Did you mean 3d_fullres"),
        ({"trainer": "shrt"}, "Did you mean 'short'"),
        ({"overrides": ["trainer.epoch=3"]}, "no setting trainer.epoch. Did you mean 'epochs'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"device": "gpu"}, "--device gpu"),
        ({"precision": "fp8"}, "--precision fp8"),
        ({"precision": "fp16", "device": "cpu"}, "fp16 needs a CUDA device"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(make_project, options, message):
    project = make_project()
    with pytest.raises(SegplugError) as raised:
        run(project, **options)
    assert message in str(raised.value)
    assert not project.workspace.results.exists()


def test_cases_that_are_not_preprocessed(make_project, prepared, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    cases = [path.stem for path in (data / "preprocessed" / NAME).rglob("*.case")]
    splits = [{"train": [*cases[1:], "nobody"], "val": cases[:1]}]
    (data / "preprocessed" / NAME / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(DataError, match="nobody"):
        run(make_project(data=data))


def test_nothing_preprocessed_leaves_no_splits(make_project, tmp_path, prepared):
    """A file of no folds would stand in the way of every later training."""
    data = unpreprocessed(prepared, tmp_path)
    with pytest.raises(DataError, match="segplug preprocess"):
        run(make_project(data=data))
    splits = data / "preprocessed" / NAME / "splits_final.json"
    assert not splits.is_file() or json.loads(splits.read_text())


def test_splits_are_made_of_all_cases_not_of_those_preprocessed_so_far(make_project, tmp_path, prepared):
    data = unpreprocessed(prepared, tmp_path)
    (store,) = (data / "preprocessed" / NAME).glob("*_3d_fullres")
    whole = sorted((prepared / "preprocessed" / NAME / store.name).glob("*.case"))
    for case in whole[:3]:
        shutil.copy(case, store)
    with pytest.raises(DataError, match="2 cases of the fold not preprocessed"):
        run(make_project(data=data))
    splits = json.loads((data / "preprocessed" / NAME / "splits_final.json").read_text())
    assert sorted(case for fold in splits for case in fold["val"]) == [path.stem for path in whole]


def test_cases_preprocessed_for_another_plan_are_refused(make_project, tmp_path, prepared):
    """Plans share folders of preprocessed cases; those of another spacing make a network that predicts nonsense."""
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    file = data / "preprocessed" / NAME / f"{PLANS}.json"
    plan = json.loads(file.read_text())
    plan["configurations"]["3d_fullres"]["spacing"][0] *= 2
    file.write_text(json.dumps(plan))
    project = make_project(data=data)
    with pytest.raises(DataError, match=r"preprocessed otherwise than tinyPlans says \(spacing\).*segplug preprocess"):
        run(project)
    assert not project.workspace.results.exists()


def test_a_fold_past_the_splits_is_told(make_project):
    with pytest.warns(UserWarning, match=r"fold 7 is past those of .*splits_final\.json \(0 to 4\).*random split"):
        trained, _ = run(make_project(), fold=7)
    assert trained.folder.name == "fold_7"


def test_a_cascade_waits_for_the_stage_before(make_project, tmp_path, prepared):
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    file = data / "preprocessed" / NAME / f"{PLANS}.json"
    plan = json.loads(file.read_text())
    plan["configurations"]["cascade"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
    file.write_text(json.dumps(plan))
    project = make_project(data=data)
    with pytest.raises(DataError, match=r"has no predictions of 3d_fullres for .*segplug train .* 3d_fullres 0"):
        run(project, configuration="cascade")
    assert not project.workspace.results.exists()


def unpreprocessed(prepared: Path, tmp_path: Path) -> Path:
    """A copy of prepared data without the preprocessed cases and without splits."""
    data = tmp_path / "data"
    shutil.copytree(prepared, data, ignore=shutil.ignore_patterns("*.case", "splits_final.json"))
    return data


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainer.loss=dice_cee", "Did you mean 'dice_ce'"),
        ("trainer.loss.gamma=2", "gamma"),
        ("trainer.optimizer=sgdd", "Did you mean 'sgd'"),
        ("trainer.schedule.power=2", "power"),
        ("trainer.augmentation.mirrored=true", "mirrored"),
    ],
)
def test_a_mistake_in_a_components_name_moves_no_trained_fold(make_project, trained, setting, message):
    project = make_project()
    fold, _ = trained
    model = project.workspace.fold_folder(NAME, "nnUNetTrainer", PLANS, "3d_fullres", 0)
    shutil.copytree(fold.folder, model)
    with pytest.raises(UsageError, match=message):
        run(project, overrides=[setting])
    assert [path.name for path in model.parent.iterdir()] == ["fold_0"]
    assert (model / "checkpoint_final.pth").is_file()


def test_recipe_of_another_trainer_is_not_used(make_project):
    """The plan's recipe is for `short`; `nnunet` keeps its own settings."""
    fold, _ = run(
        make_project(),
        trainer="nnunet",
        epochs=1,
        overrides=["trainer.iterations_per_epoch=1", "trainer.val_iterations_per_epoch=1"],
    )
    settings = read_checkpoint(fold.checkpoint()).extension["trainer"]["settings"]
    assert settings["optimizer"] == {"name": "sgd", "options": {}}
    assert settings["lr"] == 1e-2
    assert ComponentRef("sgd") == ComponentRef(**settings["optimizer"])


def test_two_trainings_of_one_fold_at_once_are_refused(make_project):
    from segplug.runtime.folder_lock import working_in

    project = make_project()
    folder = project.workspace.fold_folder(NAME, "nnUNetTrainer", PLANS, "3d_fullres", 0)
    with working_in(folder), pytest.raises(UsageError, match="another run is writing here"):
        run(project)
