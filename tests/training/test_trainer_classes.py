"""nnU-Net's trainer classes by name: what they mean here, and the models that were trained with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from segplug.errors import PluginError, UsageError
from segplug.kernel import Kernel
from segplug.protocols import AugmentationContext, PredictionSettings
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.plan_codec import decode_plan
from segplug.runtime.project import Project
from segplug.runtime.trained_model import TrainedModel
from segplug.runtime.trainer_choice import choose_trainer
from segplug.runtime.workspace import Workspace
from segplug.stages.predict import predict_folder
from segplug.stages.train import train
from segplug_builtin.trainers.nnunet_classes import CLASSES, in_words

NAME, PLANS = "Dataset601_Phantom", "tinyPlans"
REGISTRY = Kernel(discover=False).registry
HAD = [name for name, settings in CLASSES.items() if not isinstance(settings, str)]


@pytest.mark.parametrize("name", HAD)
def test_a_class_is_a_trainer_with_components_that_exist(name: str) -> None:
    trainer = REGISTRY.build("trainers", name)
    for field, kind in (
        ("loss", "losses"),
        ("optimizer", "optimizers"),
        ("schedule", "schedules"),
        ("augmentation", "augmentations"),
    ):
        REGISTRY.check(kind, getattr(trainer, field))


def test_a_class_in_words_is_its_settings() -> None:
    words = in_words("nnUNetTrainer_onlyMirror01_1500ep")
    assert words == "epochs=1500 augmentation=nnunet augmentation.mirror=all_but_last"
    plan = _plan()
    for name in HAD:
        by_words = choose_trainer(
            Kernel(discover=False),
            plan,
            "3d",
            name="nnunet",
            overrides=[f"trainer.{w}" for w in in_words(name).split()],
        )
        by_name = choose_trainer(Kernel(discover=False), plan, "3d", name=name)
        assert by_words.settings == by_name.settings, name


def _plan() -> Any:
    class Plan:
        plans_name = "x"

        def recipe(self, configuration: str) -> None:
            return None

    return Plan()


@pytest.mark.parametrize(
    ("name", "missing"),
    [("AbstractPrimus", "has no network"), ("nnUNetTrainerBenchmark_5epochs", "segplug bench train")],
)
def test_what_is_not_to_be_had_says_why(name: str, missing: str) -> None:
    with pytest.raises(PluginError, match=f"{name} of nnunetv2 .*{missing}"):
        REGISTRY.build("trainers", name)


def test_training_by_a_class_bears_its_name(make_project) -> None:
    small = ["trainer.iterations_per_epoch=2", "trainer.val_iterations_per_epoch=1", "trainer.loss=topk"]
    project = make_project()
    fold = train(project, NAME, "3d_fullres", 0, plans_name=PLANS, trainer="nnUNetTrainer_1epoch", overrides=small)
    assert fold.model_folder.name == f"nnUNetTrainer_1epoch__{PLANS}__3d_fullres"
    checkpoint = read_checkpoint(fold.checkpoint())
    assert checkpoint.trainer == "nnUNetTrainer_1epoch"
    assert checkpoint.epochs_done == 1
    settings = checkpoint.extension["trainer"]["settings"]
    assert (settings["epochs"], settings["loss"]) == (1, {"name": "topk", "options": {}})
    again = train(
        project, NAME, "3d_fullres", 0, plans_name=PLANS, trainer="nnUNetTrainer_1epoch", epochs=2, continue_=True
    )
    assert read_checkpoint(again.checkpoint()).epochs_done == 2
    fold.model_folder.rename(fold.model_folder.with_name(f"nnUNetTrainer_5epochs__{PLANS}__3d_fullres"))
    with pytest.raises(UsageError, match="begun by trainer 'nnUNetTrainer_1epoch'"):
        train(project, NAME, "3d_fullres", 0, plans_name=PLANS, trainer="nnUNetTrainer_5epochs", continue_=True)


# --- models of nnunetv2 ----------------------------------------------------------------------------------------------


@pytest.fixture
def renamed(shared: Path, tmp_path: Path):
    """A function: the reference model as a class of nnunetv2 would have left it."""

    def make(trainer: str, plans: str = "nnUNetPlansTiny", configuration: str = "3d_fullres") -> Path:
        models = shared / "reference" / "models" / "Dataset004_Hippocampus"
        folder = tmp_path / "Dataset004_Hippocampus" / f"{trainer}__{plans}__{configuration}"
        shutil.copytree(models / f"nnUNetTrainer__{plans}__{configuration}", folder)
        for file in folder.rglob("checkpoint_*.pth"):
            file.chmod(0o644)
            content = dict(read_checkpoint(file).state)
            torch.save({**content, "trainer_name": trainer}, file)
        return folder

    return make


def test_a_model_of_a_class_predicts(renamed, shared: Path, tmp_path: Path) -> None:
    model = renamed("nnUNetTrainer_250epochs")
    reference = shared / "reference" / "predictions" / "nnUNetPlansTiny__3d_fullres"
    case = sorted(reference.glob("*.nii.gz"))[0].name.removesuffix(".nii.gz")
    images = shared / "datasets" / "Dataset004_Hippocampus" / "imagesTr"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{case}_0000.nii.gz").symlink_to(images / f"{case}_0000.nii.gz")
    with Project(Workspace(results=tmp_path), Kernel(discover=False), workers=0) as project:
        settings = PredictionSettings(device="cpu", precision="fp32")
        predict_folder(project, tmp_path / "in", tmp_path / "out", model, settings=settings)
    found, wanted = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{case}.nii.gz")))
        for folder in (tmp_path / "out", reference)
    )
    assert np.mean(found == wanted) >= 0.9999


def test_a_class_with_another_network_changes_the_plans_network(renamed) -> None:
    """nnunetv2's plans do not tell of batch norm; the class does."""
    model = renamed("nnUNetTrainerBN")
    assert (
        "instance"
        in json.loads((model / "plans.json").read_text())["configurations"]["3d_fullres"]["architecture"][
            "arch_kwargs"
        ]["norm_op"].lower()
    )
    assert TrainedModel(REGISTRY, model).configuration.architecture.options["norm_op"] == "torch.nn.BatchNorm3d"
    primus = TrainedModel(REGISTRY, renamed("_Primus_L_48_BS1")).configuration
    assert (primus.architecture.name, primus.patch_size) == ("primus", (48, 48, 48))
    TrainedModel(REGISTRY, renamed("SomebodysTrainer"))  # of which nothing is known


# --- against nnunetv2 itself -----------------------------------------------------------------------------------------


def ask_peer(peer: Path, folder: Path, *arguments: str) -> str:
    script = Path(__file__).with_name("peer_trainers.py")
    roots = {f"nnUNet_{root}": str(folder / root) for root in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        [peer, script, *arguments],
        cwd=folder,
        env={**os.environ, **roots},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


@pytest.mark.parity
def test_the_table_has_every_class(peer: Path, tmp_path: Path, parity) -> None:
    theirs = set(json.loads(ask_peer(peer, tmp_path)))
    parity(
        "trainer classes with an entry", len(theirs), len(theirs ^ {*CLASSES, "nnUNetTrainer"}), 0, section="Inventory"
    )


@pytest.mark.parity
def test_classes_mean_what_they_do_in_nnunetv2(peer: Path, shared: Path, tmp_path: Path, parity) -> None:
    """Length, rates, optimiser, sampling, deep supervision, mirroring and source size of each class, 2D and 3D."""
    reference = shared / "reference" / "Dataset027_ACDC"  # its 3d_fullres is augmented slice by slice
    raw = json.loads((reference / "nnUNetPlans.json").read_text())
    dataset = shared / "datasets" / "Dataset027_ACDC" / "dataset.json"
    (tmp_path / "names.json").write_text(json.dumps(["nnUNetTrainer", *HAD]))
    ask_peer(peer, tmp_path, str(reference / "nnUNetPlans.json"), str(dataset), "names.json", "found.json")
    plan = decode_plan(raw, reference / "nnUNetPlans.json")
    differing = []
    for configuration, classes in json.loads((tmp_path / "found.json").read_text()).items():
        planned = plan.configurations[configuration]
        # Primus is 3D
        assert set(HAD) - set(classes) == {name for name in HAD if configuration == "2d" and "Primus" in name}
        for name, theirs in classes.items():
            ours = described(REGISTRY.build("trainers", name), planned, theirs)
            differing += [
                f"{name} {configuration} {key}: {ours[key]}, not {theirs[key]}"
                for key in ours
                if ours[key] != (theirs[key] if key != "rates" else pytest.approx(theirs[key], rel=1e-9))
            ]
    assert not differing, "\n".join(differing)
    parity(
        "settings of trainer classes, 2d and 3d_fullres",
        2 * len([name for name in HAD if "Primus" not in name]) + len([name for name in HAD if "Primus" in name]),
        len(differing),
        0,
        section="Training step",
    )


def described(trainer: Any, planned: Any, theirs: dict[str, Any]) -> dict[str, Any]:
    context = AugmentationContext(trainer.adapt(planned).patch_size, 1)
    augmentation = REGISTRY.build("augmentations", trainer.augmentation, context=context)
    build = REGISTRY.build("optimizers", trainer.optimizer)
    optimizer = build([torch.nn.Parameter(torch.ones(1))], lr=trainer.lr, weight_decay=trainer.weight_decay)
    batch_size = trainer.batch_size or planned.batch_size
    share = trainer.oversample_foreground
    if trainer.probabilistic_oversampling == "as_fixed":
        share = (batch_size - round(batch_size * (1 - share))) / batch_size
    found = {
        "epochs": trainer.epochs,
        "iterations": [trainer.iterations_per_epoch, trainer.val_iterations_per_epoch],
        "lr": trainer.lr,
        "weight_decay": trainer.weight_decay,
        "batch_size": batch_size,
        "oversample": share,
        "probabilistic": bool(trainer.probabilistic_oversampling),
        "deep_supervision": trainer.deep_supervision,
        "mirror": list(augmentation.mirror_axes),
        "mirror_at_prediction": list(augmentation.mirror_axes),
        "source": list(augmentation.source_size()),
        "optimizer": type(optimizer).__name__,
    }
    if theirs["rates"] is None:
        return found
    schedule = REGISTRY.build("schedules", trainer.schedule)
    places = [epoch for epoch in (0, 1, 30, 49, 50, 200, 700) if epoch < trainer.epochs]
    group = optimizer.param_groups[0]
    return found | {
        **{key: group[key] for key in ("momentum", "nesterov", "amsgrad") if theirs[key] is not None},
        **({} if theirs["betas"] is None else {"betas": list(group["betas"])}),
        "rates": [schedule(trainer.lr, epoch=e, epochs=trainer.epochs, iteration=0, iterations=250) for e in places],
    }


@pytest.mark.parity
def test_nnunetv2_builds_the_networks_of_classes(peer: Path, make_project, tmp_path: Path, parity) -> None:
    """A model trained here by a class: nnunetv2's class of that name builds the network that the weights fit."""
    small = ["trainer.iterations_per_epoch=1", "trainer.val_iterations_per_epoch=1"]
    for trainer in ("nnUNetTrainerBN", "nnUNetTrainerNoDeepSupervision"):
        fold = train(
            make_project(), NAME, "3d_fullres", 0, plans_name=PLANS, trainer=trainer, overrides=small, epochs=1
        )
        ask = f"""
import json, sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from peer_classes import trainer_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
plans = PlansManager({str(fold.model_folder / "plans.json")!r})
checkpoint = torch.load({str(fold.checkpoint())!r}, weights_only=False)
build = trainer_class(checkpoint["trainer_name"]).build_network_architecture
network = build(plans, plans.get_configuration("3d_fullres"), 1, 3, enable_deep_supervision=False)
network.load_state_dict(checkpoint["network_weights"])
print([type(m).__name__ for m in network.modules() if type(m).__name__.endswith("Norm3d")][0])
"""
        roots = {f"nnUNet_{root}": str(tmp_path) for root in ("raw", "preprocessed", "results")}
        done = subprocess.run([peer, "-c", ask], env={**os.environ, **roots}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        expected = "BatchNorm3d" if trainer == "nnUNetTrainerBN" else "InstanceNorm3d"
        parity(
            "networks of trainer classes, built by nnunetv2",
            1,
            done.stdout.split()[-1] != expected,
            0,
            section="Networks",
        )
