"""Run with nnunetv2's Python: its trainers' losses of given logits and labels. Arguments: given.npz, found.npz."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from peer_classes import trainer_class


def loss_of(name: str, batch_dice: bool, ignore: int | None, regions: bool) -> Any:
    """What a trainer of this class would make, without its folders and files."""
    trainer = SimpleNamespace(
        label_manager=SimpleNamespace(has_regions=regions, ignore_label=ignore, has_ignore_label=ignore is not None),
        configuration_manager=SimpleNamespace(batch_dice=batch_dice),
        is_ddp=False,
        enable_deep_supervision=False,
        _do_i_compile=lambda: False,
    )
    return trainer_class(name)._build_loss(trainer)


if __name__ == "__main__":
    given = np.load(sys.argv[1])
    found = {}
    for case in given["cases"]:
        name, batch_dice, ignore, regions = str(case).split()
        prefix = f"{ignore}{regions}"
        logits = torch.from_numpy(given[f"logits{prefix}"]).requires_grad_()
        target = torch.from_numpy(given[f"target{prefix}"])
        if int(regions):
            parts = [(1, 2, 3), (2, 3), 3, *([4] if int(ignore) else [])]
            convert = ConvertSegmentationToRegionsTransform(parts, 0)
            target = torch.stack([convert(segmentation=t)["segmentation"] for t in target])
        value = loss_of(name, bool(int(batch_dice)), 4 if int(ignore) else None, bool(int(regions)))(logits, target)
        value.backward()
        found[f"{case} value"] = value.item()
        found[f"{case} gradient"] = logits.grad.numpy()
    np.savez(sys.argv[2], **found)
