"""The network of a configuration: either program loads the other's weights, all of them, and computes the same.

The plans are those of phantoms, with an eighth of the features; full-size networks are compared by name and shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peer_networks_of_plans import outputs

from segplug.kernel import Kernel
from segplug.runtime.network import build_network, count_input_channels
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.project import open_project
from segplug.runtime.raw_dataset import load_dataset
from segplug.stages import fingerprint as fingerprint_module
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.testing import KINDS

pytestmark = pytest.mark.parity

REGISTRY = Kernel(discover=False).registry
PLANNERS = ("default", "resenc_m")
CHOSEN = ("CT with cascade", "coarse first axis", "regions", "2D")
CLASSES = {"default": "PlainConvUNet", "resenc_m": "ResidualEncoderUNet"}


def narrowed(file: Path) -> None:
    """An eighth of the features: outputs do not get any more equal by width, and the files stay small."""
    raw = json.loads(file.read_text())
    for entry in raw["configurations"].values():
        if "architecture" in entry:
            arguments = entry["architecture"]["arch_kwargs"]
            arguments["features_per_stage"] = [features // 8 for features in arguments["features_per_stage"]]
    file.write_text(json.dumps(raw))


def test_networks_of_plans(run_peer: Callable[..., Any], parity: Callable[..., None], tmp_path: Path) -> None:
    jobs, networks = [], []
    with pytest.MonkeyPatch.context() as patch, open_project(tmp_path / "raw", tmp_path / "pre", workers=0) as project:
        patch.setattr(fingerprint_module, "TOTAL_DRAWS", 1e4)
        for number, kind in enumerate(CHOSEN):
            name = f"Dataset{601 + number}_Phantom"
            KINDS[kind].write(tmp_path / "raw" / name)
            fingerprint(project, name)
            description = load_dataset(tmp_path / "raw" / name).description
            for planner in PLANNERS:
                made = plan(project, name, planner=planner, memory_gb=KINDS[kind].memory_gb or 0.1)
                file = project.workspace.plans_file(name, made.plans_name)
                narrowed(file)
                for configuration in read_plan(file).configurations.values():
                    channels = count_input_channels(configuration, description.num_channels, description.labels)
                    classes = description.labels.output_channels
                    network = build_network(REGISTRY, configuration, channels, classes, True)
                    weights = tmp_path / f"{len(jobs)}.pt"
                    torch.save(network.state_dict(), weights)
                    job = {"plans": str(file), "configuration": configuration.name, "channels": channels}
                    jobs.append({**job, "classes": classes, "weights": str(weights)})
                    networks.append((planner, configuration, network))
    messages = run_peer("peer_networks_of_plans.py", jobs, raw=tmp_path / "raw", preprocessed=tmp_path / "theirs")
    for job, message, (planner, configuration, network) in zip(jobs, messages, networks, strict=True):
        where = (planner, configuration.name)
        assert not message, where
        parity("weights of segplug that nnunetv2 does not load strictly", 1, len(message), 0, section="Networks")
        peer = torch.load(f"{job['weights']}.peer", weights_only=True)
        own = outputs(network, configuration.patch_size, job["channels"])
        refused = 0
        try:
            network.load_state_dict(peer["weights"], strict=True)
        except RuntimeError:
            refused = 1
        parity("weights of nnunetv2 that segplug does not load strictly", 1, refused, 0, section="Networks")
        with_theirs = outputs(network, configuration.patch_size, job["channels"])
        assert not torch.equal(own[0][0], with_theirs[0][0]), "the weights are not the same ones"
        for ours, theirs in ((own, peer["given"]), (with_theirs, peer["own"])):
            for deep, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                far = max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
                supervision = "with" if deep else "without"
                what = f"{CLASSES[planner]}, {configuration.dimensions}D, {supervision} deep supervision"
                parity(f"outputs of {what}", 1, far, 1e-5, section="Networks")
