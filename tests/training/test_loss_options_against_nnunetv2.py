"""The losses that nnunetv2 has as trainer classes: values and gradients of its own.

Needs the Python of an environment with nnunetv2 (nox -s parity).
"""

from __future__ import annotations

import os
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from segplug.kernel import Kernel
from segplug.model import ComponentRef, LabelSet
from segplug.runtime.deep_supervision import SupervisedLoss

pytestmark = pytest.mark.parity

LABELS = {"background": 0, "a": 1, "b": 2, "c": 3}
REGIONS = {"background": 0, "whole": (1, 2, 3), "core": (2, 3), "tip": 3}
CLASSES = {
    "nnUNetTrainer": ComponentRef("dice_ce"),
    "nnUNetTrainerDiceCELoss_noSmooth": ComponentRef("dice_ce", {"smooth": 0}),
    "nnUNetTrainerDiceLoss": ComponentRef("dice"),
    "nnUNetTrainerCELoss": ComponentRef("ce"),
    "nnUNetTrainerTopk10Loss": ComponentRef("topk", {"k": 10}),
    "nnUNetTrainerTopk10LossLS01": ComponentRef("topk", {"k": 10, "label_smoothing": 0.1}),
    "nnUNetTrainerDiceTopK10Loss": ComponentRef("dice_topk", {"k": 10}),
}
WITH_REGIONS = ("nnUNetTrainer", "nnUNetTrainerDiceCELoss_noSmooth", "nnUNetTrainerDiceLoss")
FAILS = ("nnUNetTrainerDiceLoss",)
"""Hands the ignore label on as if it were a class: fails in nnunetv2."""


def cases() -> list[tuple[str, int, int, int]]:
    """Class, batch Dice, ignore label, regions; those that nnunetv2 can do."""
    return [
        (name, batch_dice, ignore, regions)
        for name, batch_dice, ignore, regions in product(CLASSES, (0, 1), (0, 1), (0, 1))
        if not (regions and name not in WITH_REGIONS) and not (ignore and name in FAILS)
    ]


def test_losses_equal_those_of_trainer_classes(peer: Path, tmp_path: Path, parity) -> None:
    rng = np.random.default_rng(11)
    given = {}
    for ignore, regions in product((0, 1), (0, 1)):
        shape = (2, 3 if regions else 4, 10, 12, 9)
        given[f"logits{ignore}{regions}"] = rng.normal(0, 3, shape).astype(np.float32)
        given[f"target{ignore}{regions}"] = rng.integers(0, 5 if ignore else 4, (2, 1, *shape[2:])).astype(np.int16)
    names = [" ".join(map(str, case)) for case in cases()]
    np.savez(tmp_path / "given.npz", cases=names, **given)
    environment = {**os.environ, "nnUNet_raw": "/tmp", "nnUNet_preprocessed": "/tmp", "nnUNet_results": "/tmp"}
    subprocess.run(
        [peer, Path(__file__).with_name("peer_losses.py"), "given.npz", "found.npz"],
        cwd=tmp_path,
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    expected = np.load(tmp_path / "found.npz")
    registry = Kernel(discover=False).registry
    for name, batch_dice, ignore, regions in cases():
        labels = LabelSet({**(REGIONS if regions else LABELS), **({"ignore": 4} if ignore else {})})
        channels = 3 if regions else 4
        offered = {"batch_dice": bool(batch_dice), "regions": bool(regions), "classes": channels}
        loss = SupervisedLoss(registry.build("losses", CLASSES[name], **offered), labels, deep_supervision=False)
        logits = torch.from_numpy(given[f"logits{ignore}{regions}"]).requires_grad_()
        value = loss(logits, torch.from_numpy(given[f"target{ignore}{regions}"]))
        value.backward()
        assert logits.grad is not None
        case = f"{name} {batch_dice} {ignore} {regions}"
        wanted = expected[f"{case} gradient"]
        row = f"loss of {name}"
        parity(row, 1, abs(value.item() - float(expected[f"{case} value"])), 1e-6, section="Training step")
        parity(
            f"gradient of {name}, of its largest",
            1,
            float(np.abs(logits.grad.numpy() - wanted).max() / np.abs(wanted).max()),
            1e-4,
            section="Training step",
        )


def test_cross_entropy_without_annotation_is_nothing(peer: Path) -> None:
    """nnunetv2 takes the mean of no voxels, which is NaN and spoils the weights; here it is 0."""
    ask = "import torch; from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss as CE; "
    ask += "print(CE(ignore_index=4)(torch.zeros(1, 4, 3, 3), torch.full((1, 1, 3, 3), 4)).item())"
    done = subprocess.run([peer, "-c", ask], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.split()[-1] == "nan"
    labels = LabelSet({**LABELS, "ignore": 4})
    built = Kernel(discover=False).registry.build("losses", "ce")
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    value = SupervisedLoss(built, labels)(logits, torch.full((1, 1, 3, 3), 4))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
