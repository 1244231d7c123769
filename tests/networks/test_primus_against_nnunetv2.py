"""Primus beside nnunetv2's: one seed gives the same weights, and these give the same outputs and gradients."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

from segplug.kernel import Kernel
from segplug.runtime.network import build_network
from segplug.runtime.plan_codec import decode_plan
from segplug_builtin.trainers.nnunet_classes import CLASSES

pytestmark = pytest.mark.parity

SCRIPT = Path(__file__).with_name("peer_primus.py")
REGISTRY = Kernel(discover=False).registry
SMALL = {"embed_dim": 48, "eva_depth": 3, "eva_numheads": 4, "patch_embed_size": [8, 8, 8]}
LIKE_TRAINERS = {"scale_attn_inner": True, "init_values": 0.1, "drop_path_rate": 0.5}
OTHER = {"scale_attn_inner": False, "init_values": None, "drop_path_rate": 0.0, "mlp_ratio": 2}
PLAIN_POSITIONS = {"use_rot_pos_emb": False, "use_abs_pos_embed": False}
FLAT = {"patch_embed_size": [2, 8, 4], "proj_drop_rate": 0.2}
JOBS: list[tuple[str, dict[str, Any], list[int]]] = [
    ("Primus", {**SMALL, **LIKE_TRAINERS}, [16, 24, 8]),
    ("Primus", {**SMALL, **OTHER}, [8, 16, 16]),
    ("Primus", {**SMALL, **LIKE_TRAINERS, **PLAIN_POSITIONS}, [16, 8, 16]),
    ("Primus", {**SMALL, **LIKE_TRAINERS, **FLAT}, [4, 24, 16]),
    ("PrimusV2", {**SMALL, **LIKE_TRAINERS}, [16, 24, 16]),
    ("PrimusV3", {**SMALL, **LIKE_TRAINERS}, [16, 16, 24]),
]


def ask(peer: Path, folder: Path, *arguments: Any) -> None:
    roots = {f"nnUNet_{root}": str(folder) for root in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        [peer, "-W", "ignore", SCRIPT, *arguments], env={**os.environ, **roots}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_weights_outputs_and_gradients(peer: Path, parity: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "jobs.json").write_text(json.dumps(JOBS))
    ask(peer, tmp_path, "build", tmp_path / "jobs.json", tmp_path / "peer.pt")
    measure = _script().measure
    for (kind, arguments, size), theirs in zip(JOBS, torch.load(tmp_path / "peer.pt", weights_only=True), strict=True):
        build = REGISTRY.build("architectures", f"dynamic_network_architectures.architectures.primus.{kind}")
        options = {k: v for k, v in arguments.items() if kind == "Primus" or k != "patch_embed_size"}
        torch.manual_seed(1)
        network = build(2, 3, deep_supervision=False, patch_size=size, **options)
        weights, order, output, gradients = measure(network, size)
        peer_weights, peer_order, peer_output, peer_gradients = theirs
        assert list(weights) == list(peer_weights)
        assert order == peer_order
        assert all(torch.equal(weights[name], peer_weights[name]) for name in weights)
        network.load_state_dict(peer_weights, strict=True)
        far = float((output - peer_output).abs().max())
        parity(f"outputs of {kind}, 3D", 1, far, 1e-5, section="Networks")
        # biases before a norm have no gradient but rounding
        least = 1e-3 * max(float(gradient.abs().max()) for gradient in peer_gradients.values())
        apart = max(
            float((gradients[name] - gradient).abs().max()) / max(float(gradient.abs().max()), least)
            for name, gradient in peer_gradients.items()
        )
        what = f"gradients of {kind} in training mode, some samples skipping layers, relative"
        parity(what, len(order), apart, 1e-4, section="Networks")


def test_networks_of_trainer_classes(peer: Path, shared: Path, parity: Callable[..., None], tmp_path: Path) -> None:
    """Names and shapes of all weights, at full size."""
    ask(peer, tmp_path, "classes", tmp_path / "classes.json")
    theirs = json.loads((tmp_path / "classes.json").read_text())
    assert set(theirs) == {name for name in CLASSES if "Primus" in name and name != "AbstractPrimus"}
    file = shared / "reference" / "Dataset004_Hippocampus" / "nnUNetPlans.json"
    raw = json.loads(file.read_text())
    raw["configurations"]["3d_fullres"]["patch_size"] = [16, 32, 24]
    planned = decode_plan(raw, file).configurations["3d_fullres"]
    for name, weights in theirs.items():
        configuration = REGISTRY.build("trainers", name).adapt(planned)
        if name.startswith("_"):  # these change the patch size, which nnunetv2 does elsewhere
            assert configuration.patch_size in ((96,) * 3, (48,) * 3)
            configuration = (
                decode_plan(raw, file)
                .configurations["3d_fullres"]
                .__class__(**{**vars(configuration), "patch_size": (16, 32, 24)})
            )
        with torch.device("meta"):
            network = build_network(REGISTRY, configuration, 2, 4, True)
        ours = [[key, list(tensor.shape)] for key, tensor in network.state_dict().items()]
        parity("Primus, trainer classes with other weights", 1, ours != weights, 0, section="Networks")


def _script() -> Any:
    """The script as a module: both programs are measured by the same code."""
    spec = spec_from_file_location("peer_primus", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
