"""Run by the Python of nnunetv2's environment: what its transforms and its data loader make of given inputs.

python peer_augmentation.py INPUTS.npz OUTPUTS.npz
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

SAMPLES = 800
"""Augmented samples (and draws of patches) whose distributions are compared."""


def measure(data: Any, target: Any) -> list[float]:
    """Numbers that tell apart augmented samples: data (channels, *spatial) and target (*spatial)."""
    channel, other = np.asarray(data[0], float), np.asarray(data[1], float)
    edges = [np.abs(np.diff(channel, axis=axis)).mean() for axis in range(channel.ndim)]
    held = np.argwhere(np.asarray(target) == 1)
    middle = held.mean(0).tolist() if len(held) else [-1.0] * channel.ndim
    shares = [float((np.asarray(target) == label).mean()) for label in (0, 1, 2)]
    spread = held.std(0).tolist() if len(held) else [-1.0] * channel.ndim
    skew = float((((channel - channel.mean()) / channel.std()) ** 3).mean())
    return [
        channel.mean(),
        channel.std(),
        channel.min(),
        channel.max(),
        skew,
        other.std(),
        *edges,
        *middle,
        *spread,
        *shares,
    ]


def main(inputs: str, outputs: str) -> None:
    import torch
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    given = np.load(inputs)
    made: dict[str, Any] = {}

    def tensor(name: str) -> Any:
        return torch.from_numpy(given[name].copy())

    for number in range(int(given["turns"])):
        angles, scale = given[f"angles_{number}"], float(given[f"scale_{number}"])
        size = given[f"size_{number}"].tolist()
        transform = SpatialTransform(
            size,
            0,
            False,
            p_rotation=1,
            rotation=lambda image, dim, angles=angles: float(angles[min(dim, len(angles) - 1)]),
            p_scaling=1,
            scaling=lambda image, dim, scale=scale: scale,
            p_synchronize_scaling_across_axes=1,
            border_mode_seg="constant",
            padding_value_seg=-1,
        )
        done = transform(image=tensor(f"image_{number}"), segmentation=tensor(f"labels_{number}"))
        made[f"image_{number}"], made[f"labels_{number}"] = done["image"].numpy(), done["segmentation"].numpy()

    for number in range(int(given["rows"])):
        image, values = tensor(f"row_{number}"), given[f"value_{number}"]
        every, by = torch.arange(len(image)), torch.from_numpy(values).float()
        axes = image.ndim - 1
        blur = GaussianBlurTransform((0.5, 1))
        sigmas = given[f"sigma_{number}"].tolist()
        made[f"blur_{number}"] = blur._apply_to_image(
            image.clone(), apply_to_channel=[True] * len(image), sigmas=sigmas
        )
        lower = SimulateLowResolutionTransform((0.5, 1), False, True, None, None, 1)
        zooms = by.clamp(max=1)[:, None].expand(-1, axes)
        made[f"lower_{number}"] = lower._apply_to_image(image.clone(), apply_to_channel=every, scales=zooms)
        contrast = ContrastTransform((0.7, 1.5), True, False, 1)
        made[f"contrast_{number}"] = contrast._apply_to_image(image.clone(), apply_to_channel=every, multipliers=by)
        for inverted in (0, 1):
            gamma = GammaTransform((0.7, 1.5), inverted, False, 1, 1)
            made[f"gamma_{number}_{inverted}"] = gamma._apply_to_image(
                image.clone(),
                apply_to_channel=every,
                retain_stats=by > 0,
                invert_image=torch.full_like(by, inverted) > 0,
                gamma=by,
            )
    factors = BGContrast((0.7, 1.5))
    made["factors"] = np.array([factors() for _ in range(4000)])

    for number in range(int(given["patches"])):
        patch = tuple(given[f"patch_{number}"].tolist())
        image, labels = tensor(f"source_{number}"), tensor(f"target_{number}")
        transforms = nnUNetTrainer.get_training_transforms(
            patch,
            (-float(given[f"rotation_{number}"]), float(given[f"rotation_{number}"])),
            None,
            tuple(range(len(patch))),
            bool(given[f"dummy_{number}"]),
            use_mask_for_norm=[True, False],
        )
        numbers = []
        for _ in range(SAMPLES):
            done = transforms(image=image.clone(), segmentation=labels.clone())
            numbers.append(measure(done["image"].numpy(), done["segmentation"][0].numpy()))
        made[f"measured_{number}"] = np.array(numbers)
        rotation = (float(given[f"rotation_{number}"]),) * 3
        made[f"initial_{number}"] = get_patch_size(patch, *rotation, (0.85, 1.25))

    class Labels:
        all_labels = [0, 1, 2]  # noqa: RUF012

    class Cases:
        identifiers = ("only",)

    for number in range(int(given["placings"])):
        labels = Labels()
        labels.has_ignore_label = bool(given[f"ignore_{number}"])  # type: ignore[attr-defined]
        loader = nnUNetDataLoader(Cases(), 2, given["source_size"].tolist(), given["patch_size"].tolist(), labels, 0.33)
        locations = {
            1: np.pad(given["voxels_1"], ((0, 0), (1, 0))),
            (1, 2): np.pad(given["voxels_2"], ((0, 0), (1, 0))),
            (-1, 0, 1, 2): np.pad(given["voxels_annotated"], ((0, 0), (1, 0))),
        }
        if not given[f"ignore_{number}"]:
            del locations[-1, 0, 1, 2]
        starts = [loader.get_bbox(given["shape"], bool(given[f"force_{number}"]), locations)[0] for _ in range(4000)]
        made[f"starts_{number}"] = np.array(starts)
    np.savez(outputs, **{key: np.asarray(value) for key, value in made.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
