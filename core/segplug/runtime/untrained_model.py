"""Model folders with random weights: for measurements and tests, where it does not matter what is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from segplug.kernel import Registry
from segplug.model import DatasetDescription, Plan
from segplug.runtime.checkpoint import checkpoint_content
from segplug.runtime.checkpoint_writer import write_checkpoint
from segplug.runtime.files import write_json
from segplug.runtime.network import build_network, count_input_channels
from segplug.runtime.plan_codec import encode_plan
from segplug.runtime.randomness import torch_seed


def write_untrained_model(
    folder: Path,
    plan: Plan,
    configuration: str,
    dataset: DatasetDescription,
    registry: Registry,
    *,
    folds: Sequence[int | str] = (0,),
    mirror_axes: Sequence[int] = (),
) -> Path:
    """Write a model folder as nnU-Net's trainer leaves it, of networks that have learnt nothing.

    The weights are a function of a fold's place in `folds`, and differ between folds.

    Args:
        folder: `nnUNetTrainer__<plans>__<configuration>`.
        mirror_axes: of the patch, that predictions may be mirrored along.

    Returns:
        The folder.
    """
    chosen = plan.configurations[configuration]
    plans = encode_plan(plan)
    write_json(folder / "plans.json", plans)
    write_json(folder / "dataset.json", dataset.raw)
    channels = count_input_channels(chosen, dataset.num_channels, dataset.labels)
    for place, fold in enumerate(folds):
        torch.manual_seed(torch_seed(0, "network", place))
        network = build_network(registry, chosen, channels, dataset.labels.output_channels, deep_supervision=True)
        content = checkpoint_content(
            network,
            plans=plans,
            configuration=configuration,
            fold=fold,
            dataset_json=dataset.raw,
            trainer="nnUNetTrainer",
            mirror_axes=tuple(mirror_axes),
            state={"optimizer_state": None, "current_epoch": 0, "logging": {}, "_best_ema": None},
            extension={},
        )
        write_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pth", content)
    return folder
