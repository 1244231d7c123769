"""Run by the Python of nnunetv2's environment: what its cascade transforms make of given labels.

python peer_cascade.py INPUTS.npz OUTPUTS.npz
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

SAMPLES = 1500
LABELS = (1, 2, 3)


def measure(labels: Any, before: Any) -> list[float]:
    """Of a label map (*spatial): volumes of the labels, how many voxels each gained and lost, and to whom."""
    labels = np.asarray(labels)
    pairs = [((before == old) & (labels == new)).sum() for old in range(4) for new in range(4) if old != new]
    return [*((labels == label).sum() for label in LABELS), *pairs]


def main(inputs: str, outputs: str) -> None:
    import torch
    from batchgeneratorsv2.transforms.nnunet import random_binary_operator as operators
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    given = dict(np.load(inputs))
    made: dict[str, Any] = {}

    def one_hot(labels: Any) -> Any:
        return torch.from_numpy(np.stack([labels == label for label in LABELS]).astype(np.float32))

    def joined(channels: Any) -> Any:
        assert channels.sum(0).max() <= 1
        return sum(label * channel for label, channel in zip(LABELS, channels.numpy().astype(np.int16), strict=True))

    functions = {
        "dilate": operators.binary_dilation_torch,
        "erode": operators.binary_erosion_torch,
        "close": operators.binary_closing_torch,
        "open": operators.binary_opening_torch,
    }
    for number in range(int(given["maps"])):
        channels = one_hot(given[f"labels_{number}"])
        transform = operators.ApplyRandomBinaryOperatorTransform(list(range(-len(LABELS), 0)))
        for name, function in functions.items():
            for label, radius in zip(
                given[f"label_{number}"].tolist(), given[f"radius_{number}"].tolist(), strict=True
            ):
                parameters = {"apply_to_channels": [label - 4], "operators": [function], "strel_size": [radius]}
                done = transform._apply_to_image(channels.clone(), **parameters)
                made[f"{name}_{number}_{label}"] = joined(done)
        chain = nnUNetTrainer.get_training_transforms(
            given[f"labels_{number}"].shape, (0, 0), None, (), False, is_cascaded=True, foreground_labels=list(LABELS)
        )
        made[f"tail_{number}"] = repr(
            [(round(t.apply_probability, 6), type(t.transform).__name__) for t in chain.transforms[-2:]]
        )
        for name, kept in (("operators", [1, 0]), ("drops", [0, 1])):
            numbers = []
            for _ in range(SAMPLES):
                done = {"image": channels.clone()}
                for transform, wanted in zip(chain.transforms[-2:], kept, strict=True):
                    if wanted:
                        done = transform(**done)
                numbers.append(measure(joined(done["image"]), given[f"labels_{number}"]))
            made[f"measured_{name}_{number}"] = np.array(numbers)
    np.savez(outputs, **made)


if __name__ == "__main__":
    main(*sys.argv[1:])
