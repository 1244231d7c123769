"""The same seed gives the same weights under the same names, and the same weights the same outputs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

from segplug.kernel import Kernel

pytestmark = pytest.mark.parity


SCRIPT = Path(__file__).with_name("peer_networks.py")


def test_names_initial_weights_and_outputs(
    peer: Path, parity: Callable[..., None], tmp_path: Path, all_variants: list[Any]
) -> None:
    (tmp_path / "variants.json").write_text(json.dumps(all_variants))
    ours = _script()
    environment = {f"nnUNet_{name}": str(tmp_path) for name in ("raw", "preprocessed", "results")}
    subprocess.run(
        [peer, SCRIPT, tmp_path / "variants.json", tmp_path / "peer.pt"],
        check=True,
        env=environment,
        capture_output=True,
    )
    theirs = iter(torch.load(tmp_path / "peer.pt", weights_only=True))
    registry = Kernel(discover=False).registry
    for kind, dimensions, arguments in all_variants:
        for deep_supervision in (False, True):
            torch.manual_seed(1)
            build = registry.build("architectures", f"{ours.LIBRARY}.{kind}")
            weights, order, outputs = ours.measure(
                build(2, 3, deep_supervision=deep_supervision, **arguments), dimensions
            )
            peer_weights, peer_order, peer_outputs = next(theirs)
            assert list(weights) == list(peer_weights)
            assert order == peer_order
            assert all(torch.equal(weights[name], peer_weights[name]) for name in weights)
            assert len(outputs) == len(peer_outputs)
            kind_of_row = f"{kind}, {dimensions}D, {'with' if deep_supervision else 'without'} deep supervision"
            far = max(float((own - other).abs().max()) for own, other in zip(outputs, peer_outputs, strict=True))
            parity(f"outputs of {kind_of_row}", 1, far, 1e-5, section="Networks")


def _script() -> Any:
    """The script as a module: both programs are measured by the same code."""
    spec = spec_from_file_location("peer_networks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
