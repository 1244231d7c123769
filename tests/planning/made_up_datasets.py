"""Made-up data sets for planning: dataset.json and fingerprint alone, no images. Used here and beside nnunetv2."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

PLANNERS = ("ExperimentPlanner", "nnUNetPlannerResEncM", "nnUNetPlannerResEncL", "nnUNetPlannerResEncXL")
RANDOM_SEEDS = range(24)
"""Random data sets in the frozen sample."""


def case(
    name: str,
    spacings: list[list[float]],
    shapes: list[list[int]],
    *,
    channels: tuple[str, ...] = ("MRI",),
    labels: dict[str, Any] | None = None,
    num_training: int | None = None,
    relative_size: float = 1.0,
    planner: str = "ExperimentPlanner",
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One data set and how to plan it. `options` are arguments of nnunetv2's planners."""
    statistics = {"max": 9.0, "mean": 3.5, "median": 3.0, "min": -1.0, "percentile_00_5": 0.0, "percentile_99_5": 8.0}
    labels = labels or {"background": 0, "a": 1}
    regions = [name for name, value in labels.items() if isinstance(value, list)]
    return {
        "name": name,
        "planner": planner,
        "options": options or {},
        "dataset_json": {
            "channel_names": {str(i): channel for i, channel in enumerate(channels)},
            "labels": labels,
            **({"regions_class_order": [1, 2, 3][: len(regions)]} if regions else {}),
            "numTraining": len(shapes) if num_training is None else num_training,
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "SimpleITKIO",
        },
        "fingerprint": {
            "spacings": spacings,
            "shapes_after_crop": shapes,
            "median_relative_size_after_cropping": relative_size,
            "foreground_intensity_properties_per_channel": {
                str(i): {**statistics, "std": 2.0} for i in range(len(channels))
            },
        },
    }


def digest(plans: dict[str, Any]) -> dict[str, Any]:
    """Plans in short: a hash of every entry, and the entries that tell most when the hash differs."""
    brief = {}
    for name, entry in plans["configurations"].items():
        network = entry.get("architecture", {}).get("arch_kwargs", {})
        shown = {
            k: entry[k] for k in ("batch_size", "patch_size", "spacing", "median_image_size_in_voxels") if k in entry
        }
        brief[name] = {**shown, **{k: network[k] for k in ("strides", "kernel_sizes") if k in network}}
    every_entry = json.dumps(plans, sort_keys=True)
    return {"sha256": hashlib.sha256(every_entry.encode()).hexdigest(), "configurations": brief}


def many_labels(count: int) -> dict[str, int]:
    return {"background": 0, **{f"label {i}": i for i in range(1, count + 1)}}


def chosen_cases() -> list[dict[str, Any]]:
    """One data set for each thing that planning can meet."""
    ct_spacings = [[0.8, 0.7, 0.7], [1.0, 0.8, 0.8], [1.5, 0.9, 0.9], [2.5, 0.75, 0.75]]
    ct_shapes = [[512, 512, 512], [300, 512, 512], [400, 512, 512], [200, 512, 512]]
    residual = PLANNERS[1:]
    return [
        case("isotropic", [[1.0, 1.0, 1.0]] * 3, [[160, 192, 150], [155, 180, 140], [150, 170, 160]]),
        case("even_number_of_cases", [[1.0, 1.0, 1.1]] * 2, [[35, 51, 34], [36, 50, 35]]),
        case("coarse_z", [[5.0, 0.7, 0.7]] * 5, [[30, 512, 512]] * 5),
        case("coarse_y", [[0.7, 5.0, 0.8]] * 5, [[400, 24, 380]] * 5),
        case("coarse_x", [[0.9, 0.8, 6.0]] * 5, [[256, 256, 20]] * 5),
        case("coarse_z_varying", [[z, 1.0, 1.0] for z in (2.0, 5.0, 6.0, 10.0, 12.0)], [[12, 300, 300]] * 5),
        case("coarse_z_finer_than_plane", [[z, 1.5, 1.5] for z in (0.5, 0.6, 8.0, 8.0, 8.0)], [[12, 300, 300]] * 5),
        case("just_anisotropic", [[z, 1.0, 1.0] for z in (2.0, 2.5, 3.1, 3.2, 4.0)], [[30, 96, 100]] * 5),
        case("just_not_anisotropic", [[z, 1.0, 1.0] for z in (2.0, 2.5, 3.0, 3.2, 4.0)], [[30, 96, 100]] * 5),
        case("anisotropic_with_many_slices", [[z, 1.0, 1.0] for z in (2.0, 2.5, 3.1, 3.2, 4.0)], [[32, 96, 100]] * 5),
        case("ct_with_cascade", ct_spacings, ct_shapes, channels=("CT",), labels=many_labels(15)),
        case("ct_thick", [[5.0, 0.8, 0.8]] * 4, [[120, 512, 512]] * 4, channels=("CT",), num_training=131),
        case("lowres_dropped", [[1.0, 1.0, 1.0]] * 2, [[215, 215, 215]] * 2),
        case("tiny", [[1.0, 1.0, 1.0]] * 4, [[9, 12, 10], [8, 11, 12], [7, 14, 9], [10, 10, 10]]),
        case("too_small_to_pool", [[1.0, 1.0, 1.0]], [[6, 7, 5]]),
        case("single_slice", [[999.0, 1.0, 1.0]] * 3, [[1, 512, 640], [1, 480, 600], [1, 300, 300]]),
        case("single_slice_of_any_axis", [[1.0, 1.0, 3.0]] * 3, [[256, 200, 1]] * 3),
        case("one_case", [[3.0, 0.5, 0.5]], [[40, 320, 320]], num_training=1),
        case("two_dimensional_large", [[999.0, 1.0, 1.0]] * 20, [[1, 3000, 5000]] * 20, channels=("R", "G", "B")),
        case("many_labels", [[1.5, 1.5, 1.5]] * 10, [[250, 230, 240]] * 10, labels=many_labels(117)),
        case(
            "regions_and_ignore",
            [[1.0, 1.0, 1.0]] * 9,
            [[150, 180, 140]] * 9,
            channels=("T1", "ct", "noNorm", "rgb_to_0_1", "rescale_to_0_1", "zscore"),
            labels={"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4},
            num_training=484,
            relative_size=0.4,
        ),
        case("masked_ct", [[1.0, 1.0, 1.0]] * 3, [[100, 120, 90]] * 3, channels=("CT", "PET"), relative_size=0.7499),
        case("memory_4", ct_spacings, ct_shapes, options={"gpu_memory_target_in_gb": 4}),
        case("memory_80", ct_spacings, ct_shapes, num_training=300, options={"gpu_memory_target_in_gb": 80}),
        case("spacing_given", ct_spacings, ct_shapes, options={"overwrite_target_spacing": [2.0, 1.2, 1.1]}),
        case("spacing_turns", ct_spacings, ct_shapes, options={"overwrite_target_spacing": [0.8, 3.0, 0.9]}),
        case("plans_named", ct_spacings, ct_shapes, options={"plans_name": "mine"}),
        case("resenc_m", ct_spacings, ct_shapes, planner=residual[0]),
        case("resenc_l", ct_spacings, ct_shapes, planner=residual[1], options={"plans_name": "other"}),
        case("resenc_xl", ct_spacings, ct_shapes, num_training=40, planner=residual[2]),
        case("resenc_10", ct_spacings, ct_shapes, planner=residual[1], options={"gpu_memory_target_in_gb": 10}),
        case("resenc_2d", [[999.0, 1.0, 1.0]] * 7, [[1, 700, 500]] * 7, planner=residual[0], num_training=900),
        case("resenc_coarse", [[4.0, 0.5, 0.6]] * 3, [[36, 448, 400]] * 3, planner=residual[2]),
    ]


def random_case(seed: int) -> dict[str, Any]:
    """A data set out of nowhere; the same seed gives the same one."""
    draw = random.Random(seed)
    cases = draw.choice((1, 2, 3, 4, 7, 12))
    flat = draw.random() < 0.15
    smallest = draw.choice((3, 6, 8))
    size = [round(2 ** draw.uniform(smallest, 9.5)) for _ in range(3)]
    spacing = [round(2 ** draw.uniform(-2, 2.5), draw.choice((1, 2, 6))) or 0.1 for _ in range(3)]
    if draw.random() < 0.4:
        axis = draw.randrange(3)
        spacing[axis] *= draw.choice((2.0, 3.1, 5.0, 8.0))
        size[axis] = max(1, size[axis] // draw.choice((2, 4, 8)))
    spread = draw.choice((0.0, 0.05, 0.4))
    shapes, spacings = [], []
    for _ in range(cases):
        shape = [max(1, round(n * draw.uniform(1 - spread, 1 + spread))) for n in size]
        shapes.append([1, *shape[1:]] if flat else shape)
        moved = [s * draw.uniform(1 - spread, 1 + spread) for s in spacing]
        spacings.append([999.0, 1.0, 1.0] if flat else moved)
    channels = tuple(draw.choice(("CT", "MRI", "nonorm", "rgb_to_0_1", "T2")) for _ in range(draw.choice((1, 1, 2, 4))))
    labels: dict[str, Any] = many_labels(draw.choice((1, 2, 3, 14, 60)))
    if draw.random() < 0.2:
        labels["ignore"] = len(labels)
    options: dict[str, Any] = {}
    if draw.random() < 0.25:
        options["gpu_memory_target_in_gb"] = draw.choice((3, 6, 11.5, 16, 48, 80))
    if draw.random() < 0.2 and not flat:
        options["overwrite_target_spacing"] = [float(s * draw.choice((0.5, 1.0, 1.3, 4.0))) for s in spacing]
    return case(
        f"random_{seed}",
        spacings,
        shapes,
        channels=channels,
        labels=labels,
        num_training=draw.choice((cases, 20, 200, 2000)),
        relative_size=draw.choice((1.0, 0.75, 0.5)),
        planner=draw.choice(PLANNERS),
        options=options,
    )
