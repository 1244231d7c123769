"""Losses with deep supervision, regions and ignore label equal those of nnunetv2 itself, values and gradients.

Needs the Python of an environment with nnunetv2 (nox -s parity).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from segplug.model import LabelSet
from segplug.runtime.deep_supervision import SupervisedLoss
from segplug_builtin.losses import DiceCrossEntropy

pytestmark = pytest.mark.parity

PROGRAM = """
import sys
import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

if __name__ == "__main__":
    given = np.load(sys.argv[1])
    outputs = [torch.from_numpy(given[f"logits{i}"]).requires_grad_() for i in range(int(given["scales"]))]
    target = torch.from_numpy(given["target"])
    batch_dice, ignore = bool(given["batch_dice"]), int(given["ignore"])
    ignore = None if ignore < 0 else ignore
    options = {"batch_dice": batch_dice, "smooth": 1e-5, "ddp": False}
    if given["regions"]:
        regions = [(1, 2, 3), (2, 3), 3]
        loss = DC_and_BCE_loss({}, {**options, "do_bg": True}, use_ignore_label=ignore is not None,
                               dice_class=MemoryEfficientSoftDiceLoss)
        convert = ConvertSegmentationToRegionsTransform(regions + [ignore] if ignore is not None else regions, 0)
        target = torch.stack([convert(segmentation=t)["segmentation"] for t in target])
    else:
        loss = DC_and_CE_loss({**options, "do_bg": False}, {}, ignore_label=ignore,
                              dice_class=MemoryEfficientSoftDiceLoss)
    scales = [[a / b for a, b in zip(o.shape[2:], outputs[0].shape[2:])] for o in outputs]
    downsampled = [DownsampleSegForDSTransform(scales)(segmentation=t)["segmentation"] for t in target]
    targets = [torch.stack([d[i] for d in downsampled]) for i in range(len(scales))]
    weights = np.array([1 / 2**i for i in range(len(scales))])
    weights[-1] = 0
    value = DeepSupervisionWrapper(loss, weights / weights.sum())(outputs, targets)
    value.backward()
    np.savez(sys.argv[2], value=value.item(), **{f"grad{i}": o.grad.numpy() for i, o in enumerate(outputs[:-1])})
"""

LABELS = {"background": 0, "a": 1, "b": 2, "c": 3}
REGIONS = {"background": 0, "whole": (1, 2, 3), "core": (2, 3), "tip": 3}


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("regions", [False, True])
def test_equals_nnunetv2(
    peer: Path, parity: Callable[..., None], tmp_path: Path, batch_dice: bool, ignore: bool, regions: bool
) -> None:
    rng = np.random.default_rng([batch_dice, ignore, regions])
    shapes = [(16, 24, 20), (8, 12, 10), (4, 6, 5)]
    channels = 3 if regions else 4
    logits = [rng.normal(0, 3, (2, channels, *shape)).astype(np.float32) for shape in shapes]
    target = rng.integers(0, 5 if ignore else 4, (2, 1, *shapes[0])).astype(np.int16)
    given = {f"logits{i}": array for i, array in enumerate(logits)}
    np.savez(
        tmp_path / "given.npz",
        **given,
        target=target,
        scales=len(shapes),
        batch_dice=batch_dice,
        ignore=4 if ignore else -1,
        regions=regions,
    )
    (tmp_path / "peer.py").write_text(PROGRAM)
    environment = {**os.environ, "nnUNet_raw": "/tmp", "nnUNet_preprocessed": "/tmp", "nnUNet_results": "/tmp"}
    subprocess.run(
        [peer, "peer.py", "given.npz", "found.npz"], cwd=tmp_path, check=True, env=environment, capture_output=True
    )
    expected = np.load(tmp_path / "found.npz")

    labels = LabelSet({**(REGIONS if regions else LABELS), **({"ignore": 4} if ignore else {})})
    loss = SupervisedLoss(DiceCrossEntropy(batch_dice=batch_dice, regions=regions), labels)
    outputs = [torch.from_numpy(array).requires_grad_() for array in logits]
    value = loss(outputs, torch.from_numpy(target))
    value.backward()

    what = "loss with deep supervision: labels and regions, with and without ignore label and batch Dice"
    parity(what, 1, abs(value.item() - float(expected["value"])), 1e-6, section="Training step")
    for i, output in enumerate(outputs[:-1]):
        gradient = expected[f"grad{i}"]
        np.testing.assert_allclose(output.grad.numpy(), gradient, atol=1e-8, rtol=1e-4)
        far = float(np.abs(output.grad.numpy() - gradient).max() / np.abs(gradient).max())
        parity("its gradients, relative to the largest", 1, far, 1e-5, section="Training step")
    assert outputs[-1].grad is None
