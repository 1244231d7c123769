"""A volume of ten times the memory: made, predicted under --max-memory, and compared where it can be.

    python large_volume.py FOLDER --limit 0.45 --shape 1100 1000 1000

The model has random weights and few features: what is measured is memory, not accuracy. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def make_volume(path: Path, shape: tuple[int, ...], seed: int = 0) -> None:
    """An OME-Zarr image of smooth noise with a border of zeros, float32, chunks of 64^3; made chunk by chunk."""
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=3)
    array = group.create_array("0", shape=shape, chunks=(64, 64, 64), dtype=np.float32)
    axes = [{"name": a, "type": "space", "unit": "millimeter"} for a in "zyx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    dataset = {"path": "0", "coordinateTransformations": scale}
    group.attrs.put({"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [dataset]}]}})
    random = np.random.default_rng(seed)
    coarse = random.normal(100, 30, (64, 16, 16)).astype(np.float32)
    for z in range(0, shape[0], 64):
        depth = min(64, shape[0] - z)
        slab = np.kron(np.roll(coarse, z, 0), np.ones((1, 4, 4), np.float32))[:depth]
        for y in range(0, shape[1], 64):
            row = np.tile(slab, (1, 1, -(-shape[2] // 64)))[:, : shape[1] - y, : shape[2]]
            array[z : z + depth, y : y + 64] = row * (1 + (y + z) % 7 / 20)
    array[:3] = 0
    array[:, :, -5:] = 0


def make_model(folder: Path, normalizer: str) -> Path:
    """A model folder with random weights: two stages, two features, a patch of 64^3."""
    from segplug.arrays.images import usual_project
    from segplug.model import ChannelStatistics, ComponentRef, Configuration, Plan
    from segplug.runtime.dataset_json import parse_description
    from segplug.runtime.untrained_model import write_untrained_model

    network = {
        "n_stages": 2, "features_per_stage": [2, 4], "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": 3,
        "strides": [1, 2], "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1, "conv_bias": True, "norm_op": None,
        "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    resample: dict[str, Any] = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": False}
    configuration = Configuration(
        name="3d_fullres",
        data_identifier="plans_3d_fullres",
        batch_size=2,
        patch_size=(64, 64, 64),
        median_shape=(64, 64, 64),
        spacing=(1.0, 1.0, 1.0),
        normalization=(ComponentRef(normalizer),),
        use_mask_for_norm=(False,),
        resample_data=ComponentRef("resample_data_or_seg_to_shape", {**resample, "order": 3}),
        resample_seg=ComponentRef("resample_data_or_seg_to_shape", {**resample, "is_seg": True}),
        resample_probabilities=ComponentRef("resample_data_or_seg_to_shape", resample),
        architecture=ComponentRef("dynamic_network_architectures.architectures.unet.PlainConvUNet", network),
        architecture_imports=("conv_op", "nonlin"),
    )
    plan = Plan(
        dataset_name="Dataset001_Large",
        plans_name="plans",
        original_median_spacing=(1.0, 1.0, 1.0),
        original_median_shape=(64, 64, 64),
        reader=ComponentRef("ome_zarr"),
        transpose_forward=(0, 1, 2),
        transpose_backward=(0, 1, 2),
        configurations={"3d_fullres": configuration},
        planner="ExperimentPlanner",
        channels=(ChannelStatistics(100, 100, 30, 0, 255, 180, 20),),
    )
    raw = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "first": 1, "second": 2},
        "numTraining": 1,
        "file_ending": ".ome.zarr",
    }
    dataset = parse_description(raw, plan.dataset_name, folder / "dataset.json")
    registry = usual_project().kernel.registry
    return write_untrained_model(folder / "nnUNetTrainer__plans__3d_fullres", plan, "3d_fullres", dataset, registry)


def predict(folder: Path, images: str, model: Path, limit: float | None) -> dict[str, Any]:
    """Predict by the command line in a process of its own; its seconds and its peak, of the whole process tree."""
    from segplug.runtime.process_tree import UsageMeter

    out = folder / f"{images}_{'limited' if limit else 'ordinary'}"
    command = [sys.executable, "-m", "segplug", "predict", "-i", str(folder / images), "-o", str(out), "-m", str(model)]
    command += ["--device", "cpu", "--precision", "fp32", "--no-mirroring", "--step-size", "1", "--workers", "0"]
    began = time.time()
    command += ["--max-memory", str(limit)] if limit else []
    with subprocess.Popen(command) as process, UsageMeter(process.pid) as meter:
        process.wait()
    if process.returncode:
        raise SystemExit(process.returncode)
    return {"out": str(out), "seconds": round(time.time() - began, 1), "peak_gb": meter.usage.peak_memory / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=float, default=0.45)
    parser.add_argument("--shape", type=int, nargs=3, default=(1100, 1010, 1020))
    parser.add_argument("--normalizer", default="CTNormalization")
    parser.add_argument("--compare", action="store_true", help="predict it with all memory too, and compare")
    asked = parser.parse_args()
    volume = asked.folder / "images" / "large_0000.ome.zarr"
    if not volume.exists():
        make_volume(volume, tuple(asked.shape))
    model = make_model(asked.folder, asked.normalizer)
    found = predict(asked.folder, "images", model, asked.limit)
    size = 4 * int(np.prod(asked.shape)) / 1e9
    found |= {"volume_gb": size, "limit_gb": asked.limit, "times_the_limit": size / asked.limit}
    if asked.compare:
        import zarr

        ordinary = predict(asked.folder, "images", model, None)
        one, other = (
            zarr.open_array(Path(each["out"]) / "large.ome.zarr" / "0", mode="r") for each in (found, ordinary)
        )
        same = sum(int((one[z : z + 64] == other[z : z + 64]).sum()) for z in range(0, one.shape[0], 64))
        found |= {"ordinary": ordinary, "voxel_agreement": same / one.size, "differing_voxels": one.size - same}
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
