"""Plans: patches that the encoder can halve, within the memory, of the bundled sample and of pictures in colour."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from segplug_foundation.encoders import build_encoder
from segplug_foundation.memory import bytes_of_sample, bytes_of_weights, kept_bytes
from segplug_foundation.networks import build_timm_unet
from segplug_foundation.planner import NO_3D, plan_timm_unet
from segplug_foundation.rates import stage_factors

import segplug
from segplug import ComponentRef
from segplug.errors import DataError, UsageError
from segplug.kernel import Kernel
from segplug.model import Budget, ChannelStatistics, DatasetDescription, Fingerprint, LabelSet, Plan
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.sample import DATASET, sample_root

SHARED = Path(os.environ.get("SEGPLUG_SHARED", "../../../shared"))
NUCLEI = SHARED / "datasets" / "Dataset120_Nuclei"
SMALL_SWIN: dict[str, Any] = {"depths": [1, 1, 1, 1], "embed_dim": 24}


def known(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], cases: int = 100, channels: int = 1
) -> tuple[Fingerprint, DatasetDescription]:
    """A data set whose images are all alike."""
    statistics = (ChannelStatistics(0.0, 0.0, 1.0, -3.0, 3.0, 2.5, -2.5),) * channels
    description = DatasetDescription(
        "Dataset999_Thought",
        ("MRI",) * channels,
        LabelSet({"background": 0, "organ": 1, "lesion": 2}),
        ".nii.gz",
        cases,
        reader="simpleitk",
        normalizers=("zscore",) * channels,
    )
    return Fingerprint((spacing,) * cases, (shape,) * cases, statistics, 1.0), description


@pytest.mark.parametrize(
    ("encoder", "options", "stride"),
    [
        ("resnet18", {}, 32),
        ("vit_tiny_patch16_224", {"depth": 3}, 16),
        ("swin_tiny_patch4_window7_224", SMALL_SWIN, 32),
        ("resnet18", {"out_indices": [0, 1, 2]}, 8),
    ],
)
@pytest.mark.parametrize("shape", [(36, 50, 35), (1, 700, 1100)])
def test_the_patch_suits_the_encoder_and_two_samples_fit(
    encoder: str, options: dict[str, Any], stride: int, shape: tuple[int, int, int]
) -> None:
    memory = 1.0
    fingerprint, description = known(shape, (999.0 if shape[0] == 1 else 1.0, 1.0, 1.0))
    plan = plan_timm_unet(fingerprint, description, Budget(memory_gb=memory), encoder=encoder, encoder_options=options)
    (flat,) = plan.configurations.values()
    assert flat.name == "2d"
    assert all(n % stride == 0 for n in flat.patch_size)
    assert flat.batch_size >= 2
    with torch.device("meta"):
        network = build_timm_unet(
            1, 3, deep_supervision=True, patch_size=flat.patch_size, **flat.architecture.options
        ).train()
    sample = bytes_of_sample(network, torch.empty(2, 1, *flat.patch_size, device="meta"), 3)
    room = memory * 2**30 - bytes_of_weights(network)
    assert flat.batch_size * sample <= room
    covers = all(n >= m for n, m in zip(flat.patch_size, flat.median_shape, strict=True))
    largest = flat.batch_size * math.prod(flat.patch_size) > 0.04 * math.prod(shape) * 100
    # not smaller than needed: it holds the whole image, or another step would not have fitted
    assert covers or 2 * sample * (1 + stride / min(flat.patch_size)) > 0.8 * room
    assert largest or (flat.batch_size + 1) * sample > 0.8 * room


def test_what_is_planned_is_what_autograd_keeps() -> None:
    """Measured without values, and with them on a CPU."""
    made = {}
    for device in ("meta", "cpu"):
        with torch.device(device):
            network = build_timm_unet(2, 3, deep_supervision=True, patch_size=(64, 96), encoder="resnet18").train()
            made[device] = kept_bytes(network, torch.zeros(2, 2, 64, 96))
    assert made["meta"] == pytest.approx(made["cpu"], rel=0.01)


def test_less_memory_gives_less_and_too_little_is_told() -> None:
    thought = known((1, 1000, 1000), (999.0, 1.0, 1.0))
    seen = [plan_timm_unet(*thought, Budget(memory_gb=memory)).configurations["2d"] for memory in (0.5, 16.0)]
    pixels = [math.prod(each.patch_size) for each in seen]
    assert pixels == sorted(pixels)
    assert pixels[0] < pixels[-1]
    assert seen[-1].batch_size > 2
    with pytest.raises(DataError, match=r"no patch fits into 0.01 GB.*'resnet18' with the least patch, \(32, 32\)"):
        plan_timm_unet(*thought, Budget(memory_gb=0.01))
    with pytest.raises(UsageError, match="memory of -1 GB: expected a positive number"):
        plan_timm_unet(*thought, Budget(memory_gb=-1))


def test_the_patch_is_as_long_in_mm_along_both_axes_until_the_image_ends() -> None:
    plan = plan_timm_unet(*known((1, 5000, 5000), (999.0, 2.0, 1.0)), Budget(memory_gb=100.0))
    y, x = plan.configurations["2d"].patch_size
    assert x == pytest.approx(2 * y, abs=32)
    assert plan.configurations["2d"].spacing == (2.0, 1.0)


def test_names_and_data_are_kept_apart() -> None:
    thought = known((20, 100, 100), (2.0, 1.0, 1.0))
    plan = plan_timm_unet(*thought, Budget())
    assert plan.plans_name == "segplugTimmPlans_resnet18"
    assert plan.configurations["2d"].data_identifier == "nnUNetPlans_2d"
    assert plan_timm_unet(*thought, Budget(plans_name="mine")).plans_name == "mine"
    other = plan_timm_unet(*thought, Budget(spacing=(2.0, 2.0, 2.0))).configurations["2d"]
    assert other.data_identifier == "segplugTimmPlans_resnet18_2d"
    assert other.spacing == (2.0, 2.0)


def test_learning_rates_fall_from_the_decoder_to_the_stem() -> None:
    plan = plan_timm_unet(*known((20, 100, 100), (2.0, 1.0, 1.0)), Budget(), layer_decay=0.5)
    assert plan.training[""].options["lr_factors"] == {
        "encoder.model.conv1": 0.03125,
        "encoder.model.bn1": 0.03125,
        "encoder.model.layer1": 0.0625,
        "encoder.model.layer2": 0.125,
        "encoder.model.layer3": 0.25,
        "encoder.model.layer4": 0.5,
    }
    assert "lr_factors" not in plan_timm_unet(*known((20, 100, 100), (2.0, 1.0, 1.0)), Budget()).training[""].options


@pytest.mark.parametrize(
    "encoder", ["convnext_atto", "efficientnet_b0", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"]
)
def test_every_weight_of_an_encoder_has_a_rate(encoder: str) -> None:
    with torch.device("meta"):
        network = build_timm_unet(3, 2, deep_supervision=True, patch_size=(64, 64), encoder=encoder)
    factors = stage_factors(network.encoder, 0.7, encoder)  # type: ignore[arg-type]
    names = [name for name, _ in network.named_parameters() if name.startswith("encoder.")]
    rates = [[f for part, f in factors.items() if name == part or name.startswith(f"{part}.")] for name in names]
    assert all(len(found) == 1 for found in rates)
    assert len({found[0] for found in rates}) >= 5
    assert max(factors.values()) == 0.7


def test_decay_that_cannot_be_is_refused() -> None:
    thought = known((20, 100, 100), (2.0, 1.0, 1.0))
    for decay in (0.0, 1.5, -1.0):
        with pytest.raises(DataError, match=f"layer_decay {decay}; expected more than 0, and at most 1"):
            plan_timm_unet(*thought, Budget(), layer_decay=decay)
    with torch.device("meta"):
        encoder = build_encoder("poolformer_s12", 3, (64, 64))
    with pytest.raises(DataError, match=r"timm does not tell the stages of 'poolformer_s12'.*lr_factors.encoder"):
        stage_factors(encoder, 0.5, "poolformer_s12")


def planned(raw: Path, folder: Path, dataset: str, **options: Any) -> Plan:
    workspace = Workspace(raw, folder / "preprocessed", folder / "results")
    with Project(workspace, Kernel(), workers=0) as project:
        segplug.fingerprint(project, dataset)
        return segplug.plan(project, dataset, planner=ComponentRef("timm_unet", options))


def test_volumes_are_planned_slice_by_slice_and_the_plan_says_why(tmp_path: Path) -> None:
    plan = planned(sample_root(), tmp_path, DATASET)
    assert list(plan.configurations) == ["2d"]
    flat = plan.configurations["2d"]
    assert flat.patch_size == (64, 64)
    assert flat.batch_size == round(0.05 * math.prod(plan.original_median_shape) * 24 / 64**2)
    assert plan.segplug_extra["note"] == NO_3D
    assert ("planners", "segplug-foundation") in {(e["kind"], e["distribution"]) for e in plan.provenance}


@pytest.mark.skipif(not NUCLEI.is_dir(), reason=f"no data set in {NUCLEI} (SEGPLUG_SHARED)")
def test_pictures_in_colour(tmp_path: Path) -> None:
    """The first ten of them."""
    raw = tmp_path / "raw" / NUCLEI.name
    described = json.loads((NUCLEI / "dataset.json").read_text()) | {"numTraining": 10}
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
        for file in sorted((NUCLEI / part).iterdir())[:10]:
            shutil.copy(file, raw / part)
    (raw / "dataset.json").write_text(json.dumps(described))
    plan = planned(tmp_path / "raw", tmp_path, NUCLEI.name, encoder="convnext_atto", layer_decay=0.8)
    (flat,) = plan.configurations.values()
    assert len(flat.normalization) == 3
    assert all(n % 32 == 0 for n in flat.patch_size)
    assert "note" not in plan.segplug_extra
    network = build_timm_unet(3, 2, deep_supervision=False, patch_size=flat.patch_size, **flat.architecture.options)
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 3, *flat.patch_size)).shape == (1, 2, *flat.patch_size)
