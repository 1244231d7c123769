"""A cascade's training that one program began goes on in the other."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segplug.kernel import Kernel
from segplug.model import ComponentRef
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.train import train
from segplug.testing import Phantom

pytestmark = pytest.mark.parity

NAME, PLANS = "Dataset611_Cascade", "tinyPlans"
RECIPE = {"epochs": 2, "iterations_per_epoch": 2, "val_iterations_per_epoch": 1}


def test_a_cascade_goes_on_in_the_other_program(
    prepare: Callable[..., Path], peer: Path, parity: Callable[..., None], tmp_path: Path
) -> None:
    """nnunetv2's trainer loads segplug's checkpoint strictly, optimiser and log too, and saves it; segplug goes on from
    that file. NumPy scalars, which nnunetv2 puts there, are read without running code from the file."""
    phantom = Phantom(shape=(18, 22, 20), channels=("CT",))
    data = prepare(tmp_path / "data", phantom, training=ComponentRef("nnunet", RECIPE))
    with Project(
        Workspace(data / "raw", data / "preprocessed", tmp_path / "ours"), Kernel(discover=False), workers=0
    ) as project:
        train(project, NAME, "3d_lowres", "all", plans_name=PLANS)
        trained = train(project, NAME, "3d_cascade_fullres", "all", plans_name=PLANS)
    job = {
        "resave": [{"model": str(trained.model_folder), "configuration": "3d_cascade_fullres", "fold": "all"}],
        "predict": [],
        "next_stage": [],
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    subprocess.run(
        [peer, Path(__file__).with_name("peer_models.py"), tmp_path / "job.json"],
        check=True,
        env={
            "nnUNet_raw": str(tmp_path),
            "nnUNet_preprocessed": str(tmp_path / "theirs_preprocessed"),
            "nnUNet_results": str(tmp_path / "theirs"),
            "OMP_NUM_THREADS": "1",
        },
    )
    ours, theirs = (trained.checkpoint(), Path(str(trained.checkpoint()).replace("/ours/", "/theirs/")))
    first, second = (torch.load(path, weights_only=False) for path in (ours, theirs))
    assert first["network_weights"].keys() == second["network_weights"].keys()
    most = max(
        float((weights - second["network_weights"][name]).abs().max())
        for name, weights in first["network_weights"].items()
    )
    parity("weights of a cascade, loaded and saved by nnunetv2's trainer", 1, most, 0.0, section="Networks")
    # the file that nnunetv2 saved takes the place of an interrupted training's, one epoch before the end
    results = shutil.copytree(tmp_path / "ours", tmp_path / "continued")
    folder = Path(str(trained.folder).replace("/ours/", "/continued/"))
    assert folder.is_relative_to(results)
    for path in folder.glob("checkpoint_*.pth"):
        path.unlink()
    shutil.copyfile(theirs, folder / "checkpoint_latest.pth")
    with Project(Workspace(data / "raw", data / "preprocessed", results), Kernel(discover=False), workers=0) as project:
        longer = train(project, NAME, "3d_cascade_fullres", "all", plans_name=PLANS, continue_=True, epochs=3)
    content = torch.load(longer.checkpoint(), weights_only=True)
    assert content["current_epoch"] == 3
    assert len(content["logging"]["train_losses"]) == 3
    assert content["logging"]["train_losses"][:2] == first["logging"]["train_losses"]
    (buffer, *_) = [state["momentum_buffer"] for state in content["optimizer_state"]["state"].values()]
    assert buffer.abs().max() > 0
