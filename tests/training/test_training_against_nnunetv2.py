"""Trained on the same batches from the same weights, segplug's trainer and nnunetv2's come to the same network.

nnunetv2's trainer object trains in its own program (`peer_training.py`); segplug's trainer component trains on a real
`FoldTraining`, of which only the source of batches is replaced. Every epoch is one training and one validation batch,
so that losses are compared step by step, and the learning rate falls with each. Both compute in float64: what twenty
steps make of float32's roundings depends on the processor, and came to 1e-4 of a weight on one.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import ks_2samp

from segplug.kernel import Kernel
from segplug.model import ComponentRef, EpochReport, LabelSet, Split
from segplug.protocols import Batch, BatchRequest
from segplug.runtime.compute_settings import training_compute
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.deep_supervision import SupervisedLoss
from segplug.runtime.network import build_network
from segplug.runtime.plan_codec import decode_plan
from segplug.runtime.project import Project
from segplug.runtime.randomness import torch_seed
from segplug.runtime.training_task import FoldTraining
from segplug.runtime.workspace import Workspace

pytestmark = pytest.mark.parity

SCRIPT = Path(__file__).with_name("peer_training.py")
STEPS = 20
NAME, CONFIGURATION = "Dataset700_Tiny", "tiny"
CLASSES = {"background": 0, "a": 1, "b": 2, "c": 3}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "tip": 3}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """One training.

    Args:
        wrong: begins with logits so large that its gradients are clipped.
    """

    regions: bool = False
    ignore: bool = False
    batch_dice: bool = False
    deep_supervision: bool = True
    patch: tuple[int, ...] = (16, 16, 16)
    residual: bool = False
    wrong: bool = False

    @property
    def name(self) -> str:
        kind = ("regions" if self.regions else "labels") + ("_ignore" if self.ignore else "")
        options = ("_batchdice" if self.batch_dice else "") + ("" if self.deep_supervision else "_flat")
        network = ("_residual" if self.residual else "") + ("_wrong" if self.wrong else "")
        return kind + options + network + f"_{'x'.join(map(str, self.patch))}"

    @property
    def dataset(self) -> dict[str, Any]:
        labels: dict[str, Any] = dict(REGIONS if self.regions else CLASSES)
        if self.ignore:
            labels["ignore"] = 4
        described = {"channel_names": {"0": "MRI", "1": "CT"}, "labels": labels}
        order = {"regions_class_order": [1, 2, 3]} if self.regions else {}
        return {**described, **order, "numTraining": 5, "file_ending": ".nii.gz"}

    @property
    def plans(self) -> dict[str, Any]:
        """A plans file with a network of a few thousand weights and four resolutions."""
        axes = len(self.patch)
        flat_first = axes == 3 and self.patch[0] < self.patch[1]  # as plans have it for thick slices
        strides = [[1] * axes, [1 if flat_first else 2, *[2] * (axes - 1)], [2] * axes, [2] * axes]
        blocks = "n_blocks_per_stage" if self.residual else "n_conv_per_stage"
        network = "ResidualEncoderUNet" if self.residual else "PlainConvUNet"
        resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
        spatial = {
            "patch_size": list(self.patch),
            "median_image_size_in_voxels": [float(size) for size in self.patch],
            "spacing": [1.0] * axes,
        }
        architecture = {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
            "arch_kwargs": {
                "n_stages": 4,
                "features_per_stage": [4, 8, 12, 16],
                "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
                "kernel_sizes": [[3] * axes] * 4,
                "strides": strides,
                blocks: [1] * 4,
                "n_conv_per_stage_decoder": [1] * 3,
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }
        configuration = {
            "data_identifier": f"{self.name}_{CONFIGURATION}",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            **spatial,
            "normalization_schemes": ["ZScoreNormalization", "CTNormalization"],
            "use_mask_for_norm": [False, False],
            **{f"resampling_fn_{kind}": "resample_data_or_seg_to_shape" for kind in ("data", "seg", "probabilities")},
            **{f"resampling_fn_{kind}_kwargs": resampling for kind in ("data", "seg", "probabilities")},
            "architecture": architecture,
            "batch_dice": self.batch_dice,
        }
        statistics = dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0)
        return {
            "dataset_name": NAME,
            "plans_name": self.name,
            "original_median_spacing_after_transp": [1.0] * 3,
            "original_median_shape_after_transp": [16] * 3,
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {CONFIGURATION: configuration},
            "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": statistics, "1": statistics},
        }

    def batches(self) -> tuple[Any, Any]:
        """Images (steps, 2, 2, channels, *patch) and labels (steps, 2, 2, 1, *patch), for training and validation.

        Of a data set with an ignore label most voxels are not annotated, and one sample not at all.
        """
        random = np.random.default_rng([self.regions, self.ignore, len(self.patch), self.patch[0]])
        shape = (STEPS, 2, 2, *self.patch)
        sigma = (0, 0, 0, *[2] * len(self.patch))
        field = ndimage.gaussian_filter(random.normal(size=shape), sigma)
        labels = np.digitize(field / field.std(), [0.3, 0.9, 1.5]).astype(np.int16)
        noise = random.normal(size=(STEPS, 2, 2, 2, *self.patch))
        images = (noise + labels[:, :, :, None] * np.array([1.0, -0.5]).reshape(2, *[1] * len(self.patch))) / 2
        if self.ignore:
            labels[random.random(shape) < 0.6] = 4
            labels[3, 0, 1] = 4
        return images.astype(np.float32), labels[:, :, :, None]


KINDS = [(regions, ignore) for regions in (False, True) for ignore in (False, True)]
FLAGS = [(batch_dice, deep) for batch_dice in (False, True) for deep in (False, True)]
CASES = [Case(regions, ignore, batch_dice, deep) for regions, ignore in KINDS for batch_dice, deep in FLAGS] + [
    Case(batch_dice=True, patch=(32, 24)),
    Case(ignore=True, patch=(8, 32, 24)),
    Case(regions=True, patch=(8, 16, 16)),
    Case(residual=True),
    *(Case(regions, ignore, wrong=True) for regions, ignore in KINDS),
]

OF_THEIR_OWN = [case for case in CASES if not (case.batch_dice or case.wrong)]
"""Cases with targets of their own."""


def kind_of(case: Case) -> str:
    return ("regions" if case.regions else "labels") + (", ignore label" if case.ignore else "")


@pytest.fixture(scope="module")
def done(peer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What nnunetv2 made of every case."""
    folder = tmp_path_factory.mktemp("nnunetv2")
    jobs = []
    for case in CASES:
        images, labels = case.batches()
        np.savez(folder / f"{case.name}.npz", data=images, labels=labels)
        job = {"name": case.name, "plans": case.plans, "dataset": case.dataset}
        jobs.append({**job, "deep_supervision": case.deep_supervision, "sharpness": 80.0 if case.wrong else 1.0})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    finished = subprocess.run([str(peer), str(SCRIPT), str(folder)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return {case.name: dict(np.load(folder / f"{case.name}_done.npz")) for case in CASES}


class OnGivenBatches(FoldTraining):
    """A fold whose batches are ready, and which keeps the reports of its epochs."""

    given: tuple[Any, Any]
    reports: list[EpochReport]

    @contextmanager
    def batches(self, request: BatchRequest) -> Iterator[Iterator[Batch]]:
        assert (request.batch_size, request.first_epoch, request.epochs) == (2, 0, STEPS)
        images, labels = (torch.from_numpy(each).flatten(0, 1) for each in self.given)
        yield (Batch(data.double(), target) for data, target in zip(images, labels, strict=True))

    def report(self, report: EpochReport) -> None:
        self.reports.append(report)
        super().report(report)


def prefixed(arrays: dict[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    return {
        key.removeprefix(prefix): torch.from_numpy(value) for key, value in arrays.items() if key.startswith(prefix)
    }


def new_network(kernel: Kernel, case: Case) -> torch.nn.Module:
    configuration = decode_plan(case.plans, Path("plans.json")).configurations[CONFIGURATION]
    return build_network(kernel.registry, configuration, 2, 3 if case.regions else 4, case.deep_supervision)


def train(folder: Path, case: Case, initial: dict[str, torch.Tensor]) -> OnGivenBatches:
    """Train by segplug's trainer; the task holds the reports, and the network as it was saved."""
    plan = decode_plan(case.plans, Path("plans.json"))
    kernel = Kernel(discover=False)
    with Project(Workspace(folder, folder, folder), kernel, workers=0) as project, training_compute(CPU):
        torch.set_num_threads(1)
        network = new_network(kernel, case).double()
        network.load_state_dict(initial, strict=True)
        task = OnGivenBatches(
            project=project,
            plan=plan,
            configuration=plan.configurations[CONFIGURATION],
            dataset=parse_description(case.dataset, NAME, Path("dataset.json")),
            fold=0,
            split=Split((), ()),
            folder=folder,
            network=network,
            device=CPU,
            precision="fp32",
            seed=0,
            store=None,  # type: ignore[arg-type]
            trainer_name="nnUNetTrainer",
        )
        task.given, task.reports = case.batches(), []
        defaults: Any = kernel.registry.build("trainers", ComponentRef("nnunet"))
        length = {"epochs": STEPS, "iterations_per_epoch": 1, "val_iterations_per_epoch": 1}
        trainer = replace(defaults, **length, deep_supervision=case.deep_supervision)
        with task:
            trainer.train(task)
    return task


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_training_steps(done: dict[str, Any], tmp_path: Path, parity: Any, case: Case) -> None:
    theirs = done[case.name]
    task = train(tmp_path, case, prefixed(theirs, "initial:"))
    reports, kind = task.reports, kind_of(case)

    def largest(mine: Any, other: Any) -> float:
        mine, other = np.asarray(mine, float), np.asarray(other, float)
        assert mine.shape == other.shape
        assert (np.isnan(mine) == np.isnan(other)).all()
        return float(np.nanmax(np.abs(mine - other)))

    losses = np.array([report.train_loss for report in reports])
    assert np.ptp(losses) > 0.1  # something was learned
    if case.wrong:
        assert 3 <= (theirs["norms"] > 12).sum() < STEPS
    else:  # of a large loss the last digit is more than that
        parity(f"{kind}: loss", 1, largest(losses[:1], theirs["train_losses"][:1]), 1e-6, section="Training step")
    parity(f"{kind}: losses of 20 steps", 20, largest(losses, theirs["train_losses"]), 1e-4, section="Training step")
    weights = torch.load(tmp_path / "checkpoint_final.pth", weights_only=True)["network_weights"]
    final = prefixed(theirs, "final:")
    assert weights.keys() == final.keys()
    apart = max(largest(weights[key], final[key]) for key in final)
    parity(f"{kind}: weights after 20 steps", len(final), apart, 1e-6, section="Training step")
    assert max(largest(final[key], theirs[f"initial:{key}"]) for key in final) > 0.02

    section = {"section": "Training step"}
    parity("learning rate", 20, largest([report.learning_rate for report in reports], theirs["lrs"]), 1e-12, **section)
    parity("validation loss", 20, largest([r.val_loss for r in reports], theirs["val_losses"]), 1e-4, **section)
    dice = largest([report.dice for report in reports], theirs["dice_per_class_or_region"])
    parity("pseudo-Dice per class", 20, dice, 1e-5, **section)
    averages = largest([report.ema_dice for report in reports], theirs["ema_fg_dice"])
    parity("moving average of the pseudo-Dice", 20, averages, 1e-5, **section)


class Recorder:
    """A loss that keeps what it is given."""

    def __init__(self) -> None:
        self.seen: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def __call__(self, logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        self.seen.append((target, mask))
        return logits.sum()


@pytest.mark.parametrize("case", OF_THEIR_OWN, ids=lambda case: case.name)
def test_targets_of_deep_supervision(done: dict[str, Any], parity: Any, case: Case) -> None:
    """Of every resolution that has a weight, and where they count."""
    wanted = list(prefixed(done[case.name], "target:").values())
    labels = parse_description(case.dataset, NAME, Path("dataset.json")).labels
    recorder = Recorder()
    loss = SupervisedLoss(recorder, labels, deep_supervision=case.deep_supervision)
    outputs = [torch.zeros(2, 3 if case.regions else 4, *target.shape[2:]) for target in wanted]
    loss(outputs, torch.from_numpy(case.batches()[1][0, 0]))
    assert len(recorder.seen) == max(1, len(wanted) - 1)
    differing = sum(differs(seen, target, labels) for seen, target in zip(recorder.seen, wanted, strict=False))
    parity("targets of deep supervision, voxels", len(recorder.seen), differing, 0, section="Training step")


def differs(seen: tuple[torch.Tensor, torch.Tensor | None], target: torch.Tensor, labels: LabelSet) -> int:
    """Voxels at which what the loss was given is not nnunetv2's target."""
    mine, mask = seen
    if labels.ignore_label is None:
        assert mask is None
        return int((mine != target).sum())
    assert mask is not None
    if labels.has_regions:  # nnunetv2: one more channel, true where nothing is annotated
        return int((mask != (target[:, -1:] == 0)).sum() + ((mine != target[:, :-1]) & mask).sum())
    return int((mask != (target != labels.ignore_label)).sum() + ((mine != target) & mask).sum())


def test_weights_begin_alike(done: dict[str, Any], parity: Any) -> None:
    """The same distribution in every layer: none differs at a level of 1e-3, divided by the number of layers."""
    layers, worst = 0, 1.0
    for case in (CASES[0], Case(batch_dice=True, patch=(32, 24)), Case(residual=True)):
        fresh = prefixed(done[case.name], "fresh:")
        torch.manual_seed(torch_seed(0, "network", 0))
        mine = new_network(Kernel(discover=False), case).state_dict()
        for key, theirs in fresh.items():
            if "all_modules" in key or key.startswith("decoder.encoder"):
                continue  # the same weights under another name
            if theirs.numel() < 2 or theirs.min() == theirs.max():  # biases, and norms
                assert torch.equal(mine[key], theirs), key
                continue
            layers += 1
            worst = min(worst, float(ks_2samp(mine[key].flatten(), theirs.flatten(), method="asymp").pvalue))
    parity("initial weights: 1e-3 / layers / smallest p", layers, 1e-3 / layers / worst, 1, section="Training step")
