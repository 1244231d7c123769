"""Regenerate `data/golden.npz` and `data/golden.json`: what nnunetv2 2.8.1 makes of small phantoms.

Run it with a Python that has nnunetv2 (`pip install nnunetv2==2.8.1`); the tests themselves do not need it. The
phantoms are synthetic and stored beside the results, so nothing depends on a random generator staying the same.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np

HERE = Path(__file__).parent / "data"
PROPERTIES = (
    "spacing",
    "shape_before_cropping",
    "bbox_used_for_cropping",
    "shape_after_cropping_and_before_resampling",
)


def phantom(seed: int, shape: tuple[int, ...], channels: int, labels: int, border: int) -> tuple[Any, Any]:
    """Smooth blobs of whole numbers with a margin of zeros, a hole of zeros and labelled regions."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    smooth = np.stack([gaussian_filter(random.standard_normal(shape), 1.2) for _ in range(channels)])
    image = np.round(smooth / smooth.std() * 400 + 300).astype(np.int16)
    image[image == 0] = 1
    inner = tuple(slice(border if n > 4 * border else 0, n - 2 * border if n > 4 * border else n) for n in shape)
    keep = np.zeros(shape, bool)
    keep[inner] = True
    middle = tuple(slice(n // 2, n // 2 + 2) for n in shape)
    if min(shape) > 4:
        keep[middle] = False  # a hole: inside the nonzero region all the same
    image[:, ~keep] = 0
    field = gaussian_filter(random.standard_normal(shape), 1.5)
    levels = np.quantile(field, np.linspace(0.4, 0.95, labels))
    return image, np.digitize(field, levels).astype(np.int16)


def resampling(order: int, is_seg: bool = False) -> dict[str, Any]:
    return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}


def plan(
    normalization: list[str], spacing: list[float], masked: bool, transpose: list[int], patch: list[int]
) -> dict[str, Any]:
    """An nnU-Net plans file with one configuration, `test`."""
    dim = len(patch)
    statistics = {"mean": 250.0, "median": 240.0, "std": 380.5, "min": -900.0, "max": 1500.0}
    name = "resample_data_or_seg_to_shape"
    return {
        "dataset_name": "Dataset900_Phantom",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [10, 10, 10],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": transpose,
        "transpose_backward": [int(i) for i in np.argsort(transpose)],
        "configurations": {
            "test": {
                "data_identifier": "nnUNetPlans_test",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": patch,
                "median_image_size_in_voxels": [10.0] * dim,
                "spacing": spacing,
                "normalization_schemes": normalization,
                "use_mask_for_norm": [masked] * len(normalization),
                "resampling_fn_data": name,
                "resampling_fn_data_kwargs": resampling(3),
                "resampling_fn_seg": name,
                "resampling_fn_seg_kwargs": resampling(1, True),
                "resampling_fn_probabilities": name,
                "resampling_fn_probabilities_kwargs": resampling(1),
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": 2,
                        "features_per_stage": [8, 16],
                        "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                        "kernel_sizes": [[3] * dim] * 2,
                        "strides": [[1] * dim, [2] * dim],
                        "n_conv_per_stage": [2, 2],
                        "n_conv_per_stage_decoder": [2],
                        "conv_bias": True,
                        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
                        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": False,
            }
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(c): {**statistics, "percentile_00_5": -420.0, "percentile_99_5": 1180.0}
            for c in range(len(normalization))
        },
    }


LABELS = {"background": 0, "one": 1, "two": 2, "three": 3}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "last": [3]}
KINDS: dict[str, dict[str, Any]] = {
    "masked_two_channels_transposed": {
        "phantom": (1, (12, 15, 13), 2, 3, 2),
        "spacing": [1.0, 1.5, 0.8],
        "plan": plan(["ZScoreNormalization"] * 2, [1.1, 0.9, 1.0], True, [2, 0, 1], [8, 8, 8]),
        "labels": {"labels": REGIONS, "regions_class_order": [1, 2, 3]},
    },
    "ct_coarse_axis_alone": {
        "phantom": (2, (7, 17, 16), 1, 3, 1),
        "spacing": [5.0, 0.9, 0.9],
        "plan": plan(["CTNormalization"], [3.5, 0.7, 1.1], False, [0, 1, 2], [8, 8, 8]),
        "labels": {"labels": LABELS},
    },
    "coarse_last_axis": {
        "phantom": (3, (14, 13, 6), 1, 3, 1),
        "spacing": [0.8, 0.8, 4.0],
        "plan": plan(["RescaleTo01Normalization"], [1.0, 0.6, 2.2], False, [0, 1, 2], [8, 8, 8]),
        "labels": {"labels": LABELS},
    },
    "slices_with_ignore_label": {
        "phantom": (4, (6, 14, 15), 1, 3, 1),
        "spacing": [3.0, 1.2, 1.2],
        "plan": plan(["NoNormalization"], [0.9, 1.5], False, [0, 1, 2], [8, 8]),
        "labels": {"labels": {"background": 0, "one": 1, "two": 2, "ignore": 3}},
    },
    "natural_image": {
        "phantom": (5, (1, 24, 20), 3, 3, 0),
        "spacing": [999.0, 1.0, 1.0],
        "plan": plan(["RGBTo01Normalization"] * 2 + ["ZScoreNormalization"], [1.0, 1.0], False, [0, 1, 2], [16, 16]),
        "labels": {"labels": LABELS},
        "bytes": True,
    },
    "nothing_to_do": {
        "phantom": (6, (6, 7, 8), 1, 3, 0),
        "spacing": [1.0, 1.0, 1.0],
        "plan": plan(["ZScoreNormalization"], [1.0, 1.0, 1.0], False, [0, 1, 2], [8, 8, 8]),
        "labels": {"labels": LABELS},
    },
}


def main() -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, gettempdir())
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    arrays, texts = {}, {}
    for name, kind in KINDS.items():
        image, labels = phantom(*kind["phantom"])
        if kind.get("bytes"):
            image = np.clip(image // 8 + 60, 0, 255)
        dataset = {"channel_names": dict(enumerate("abc"[: len(image)])), "file_ending": ".nii.gz", "numTraining": 1}
        dataset.update(kind["labels"])
        manager = PlansManager(kind["plan"])
        for labelled in (True, False):
            data, target, properties = DefaultPreprocessor(verbose=False).run_case_npy(
                image.astype(np.float32),
                labels[None] if labelled else None,
                {"spacing": kind["spacing"]},
                manager,
                manager.get_configuration("test"),
                dataset,
            )
            if labelled:
                arrays[f"{name}/target"] = target.astype(np.int8)
                arrays[f"{name}/data"] = data
                counts = {str(k): len(v) for k, v in properties["class_locations"].items()}
            elif not np.array_equal(data, arrays[f"{name}/data"]):
                arrays[f"{name}/data_without_labels"] = data
        arrays[f"{name}/image"], arrays[f"{name}/labels"] = image, labels.astype(np.int8)
        plain = {key: np.asarray(properties[key]).tolist() for key in PROPERTIES}
        texts[name] = {"plan": kind["plan"], "dataset": dataset, "properties": plain, "locations": counts}
    HERE.mkdir(exist_ok=True)
    np.savez_compressed(HERE / "golden.npz", **arrays)
    (HERE / "golden.json").write_text(json.dumps(texts, indent=1) + "\n")


if __name__ == "__main__":
    main()
