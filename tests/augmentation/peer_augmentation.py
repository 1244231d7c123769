"""Run by the Python of nnunetv2's environment: what its transforms make of given inputs, by given parameters.

python peer_augmentation.py INPUTS.npz OUTPUTS.npz
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def main(inputs: str, outputs: str) -> None:
    import torch
    from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

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
    for number in range(int(given["patches"])):
        rotation = (float(given[f"rotation_{number}"]),) * 3
        made[f"initial_{number}"] = get_patch_size(tuple(given[f"patch_{number}"].tolist()), *rotation, (0.85, 1.25))
    np.savez(outputs, **{key: np.asarray(value) for key, value in made.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
