"""Every network without deep supervision: a training step, its checkpoint, its predictions, and nnunetv2 reading it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segplug.errors import UsageError
from segplug.kernel import Kernel
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.project import Project
from segplug.runtime.trained_model import TrainedModel
from segplug.stages.train import train

NAME, PLANS = "Dataset601_Phantom", "tinyPlans"
REGISTRY = Kernel(discover=False).registry
STEP = ["trainer.iterations_per_epoch=1", "trainer.val_iterations_per_epoch=1"]
RESIDUAL = {
    "n_stages": 2,
    "features_per_stage": [4, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": 3,
    "strides": [1, 2],
    "n_blocks_per_stage": 1,
    "n_conv_per_stage_decoder": 1,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"affine": True},
    "nonlin": "torch.nn.LeakyReLU",
}
PRIMUS = {"embed_dim": 24, "eva_depth": 2, "eva_numheads": 4}
NETWORKS: dict[str, dict[str, Any] | None] = {
    "plain_unet": None,  # the plan's
    "residual_encoder_unet": RESIDUAL,
    "primus": PRIMUS,
    "primus_v2": PRIMUS,
    "primus_v3": PRIMUS,
}


def test_every_network_is_here() -> None:
    assert set(NETWORKS) == set(REGISTRY.names("architectures"))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_training_without_deep_supervision(make_project: Callable[..., Project], network: str) -> None:
    options = NETWORKS[network]
    chosen = [] if options is None else [f"trainer.network={network}"]
    chosen += [f"trainer.network.{key}={json.dumps(value)}" for key, value in (options or {}).items()]
    settings = [*STEP, *chosen, "trainer.deep_supervision=false"]
    fold = train(make_project(), NAME, "3d_fullres", 0, plans_name=PLANS, overrides=settings, epochs=1)
    model = TrainedModel(REGISTRY, fold.model_folder)
    assert REGISTRY.find("architectures", model.configuration.architecture.name).component.name == network
    assert (fold.folder / "validation" / "summary.json").is_file()
    name = read_checkpoint(fold.checkpoint()).trainer
    assert name == ("short" if network.startswith("primus") else "nnUNetTrainer")  # who can build it in nnunetv2


def test_patches_that_a_network_cannot_take_are_told(make_project: Callable[..., Project]) -> None:
    def attempt(*overrides: str) -> None:
        train(make_project(), NAME, "3d_fullres", 0, plans_name=PLANS, overrides=overrides, epochs=1)

    with pytest.raises(UsageError, match=r"patch_size is .* multiples of"):
        attempt("trainer.patch_size=[17,16,16]")
    with pytest.raises(UsageError, match="expected 3 numbers"):
        attempt("trainer.patch_size=[16,16]")
    with pytest.raises(UsageError, match=r"no component 'primos'.*primus"):
        attempt("trainer.network=primos")


@pytest.mark.parity
@pytest.mark.parametrize("trainer", ["nnUNet_Primus_S_Trainer", "nnUNet_PrimusV2S_Trainer"])
def test_nnunetv2_reads_primus(
    peer: Path, make_project: Callable[..., Project], tmp_path: Path, parity: Callable[..., None], trainer: str
) -> None:
    fold = train(make_project(), NAME, "3d_fullres", 0, plans_name=PLANS, trainer=trainer, overrides=STEP, epochs=1)
    assert fold.model_folder.name == f"{trainer}__{PLANS}__3d_fullres"
    script = Path(__file__).parents[1] / "networks" / "peer_primus.py"
    roots = {f"nnUNet_{root}": str(tmp_path) for root in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        [peer, "-W", "ignore", script, "load", trainer, fold.model_folder],
        env={**os.environ, **roots},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    parity("models of Primus that nnunetv2's predictor does not load", 1, done.returncode, 0, section="Networks")
