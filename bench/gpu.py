"""What a GPU is used for: training steps, its share of a matrix product's speed, and predicting a large volume.

    nox -s bench -- gpu

No part of the table, which is of CPUs; figures go to bench-results/gpu.json. To reach: <= 0.5x the time of the same
network's steps in fp16, on ready batches, as nnU-Net's trainer takes them; a 512x512x400 volume with 25 classes without
any array of classes x volume in the computer's memory. Without a CUDA device it says so and measures nothing.
`--quick --device cpu` shows that all of it runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import models
import report
import training_data
from segplug.arrays.prediction import load_model
from segplug.kernel import Kernel
from segplug.model import Configuration
from segplug.protocols import PredictionSettings
from segplug.runtime.network import build_network
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.process_tree import UsageMeter
from segplug.runtime.project import open_project
from segplug.stages.bench_train import bench_training
from side_by_side import say

EPOCH = 250
"""Iterations of an epoch by nnU-Net's rule; validation is not counted."""

CLASSES, VOLUME = 25, (400, 512, 512)


def main() -> int:
    """Run it; 1 if an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="epochs of 50 iterations [default: %(default)s]")
    parser.add_argument("--device", default="cuda", help="[default: %(default)s]")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        say("there is no CUDA device that torch can use here: nothing was measured")
        return 0
    quick, repetitions = arguments.quick, 1 if arguments.quick else arguments.repetitions
    peak = matrix_product(device, 256 if quick else 8192)
    say(f"bf16 matrix product: {peak / 1e12:.4g} TFLOP/s")
    figures: dict[str, Any] = {"quick": quick, "matrix_product_tflops": peak / 1e12, "missed": []}
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as name:
        folder = Path(name)
        hippocampus = training_data.hippocampus(folder / "small", None, 5, 4 if quick else None)
        size = {"size": 80, "patch": 64, "features": 2} if quick else {}
        cubes = training_data.cubes(folder / "large", None, **size, most_features=320)
        for what, data in {"hippocampus": hippocampus, "128^3": cubes}.items():
            figures[what] = training(data, device, repetitions, 2 if quick else 50, peak)
            if figures[what]["ratio"] < 2 and not quick:
                figures["missed"].append(f"{what}: {figures[what]['ratio']:.2f}x, to reach 2x")
        figures["prediction"] = prediction(folder / "model", device, quick)
        if figures["prediction"]["extra_memory_gb"] >= figures["prediction"]["logits_gb"] and not quick:
            figures["missed"].append("prediction: memory for an array of classes x volume")
    for part in ("hippocampus", "128^3", "prediction"):
        say(f"{part}: " + ", ".join(f"{key} {value:.4g}" for key, value in figures[part].items()))
    say("\n".join(figures["missed"]) or "nothing missed")
    say(str(report.write("gpu", figures)))
    return 1 if figures["missed"] else 0


def training(
    data: training_data.TrainingData, device: torch.device, repetitions: int, iterations: int, peak: float
) -> dict[str, float]:
    """Seconds of an epoch, with and without the loading of data, beside the loop in fp16."""
    on_gpu = device.type == "cuda"
    overrides = [f"trainer.compile={'true' if on_gpu else 'false'}"]
    seconds = {}
    with open_project(data.folder / "raw", data.folder / "mine", data.folder / "results") as project:
        for name, loading in {"epoch_s": True, "epoch_without_loading_s": False}.items():
            result = bench_training(
                project,
                data.dataset,
                training_data.CONFIGURATION,
                repetitions=repetitions,
                iterations=iterations,
                data_loading=loading,
                plans_name=training_data.PLANS,
                trainer="nnunet",
                overrides=overrides,
                device=str(device),
            )
            seconds[name] = EPOCH * result.medians["seconds_per_iteration"]
    plan = read_plan(data.folder / "mine" / data.dataset / f"{training_data.PLANS}.json")
    step, flops = fp16_step(plan.configurations[training_data.CONFIGURATION], device)
    fp16 = EPOCH * timed(step, device, repetitions, iterations)
    achieved = flops * EPOCH / seconds["epoch_s"]
    return {**seconds, "fp16_loop_s": fp16, "ratio": fp16 / seconds["epoch_s"], "share_of_product": achieved / peak}


def fp16_step(configuration: Configuration, device: torch.device) -> tuple[Callable[[], object], float]:
    """A step as nnU-Net's trainer takes it on a GPU (fp16, compiled network), and its floating-point operations.

    Elsewhere it is in fp32, to see that it runs.
    """
    torch.manual_seed(0)
    on_gpu = device.type == "cuda"
    network = build_network(Kernel(discover=False).registry, configuration, 1, 3, True).to(device)
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
    scaler = torch.amp.GradScaler(device.type, enabled=on_gpu)
    shape = (configuration.batch_size, 1, *configuration.patch_size)
    data, target = torch.randn(shape, device=device), torch.randint(0, 3, shape, device=device)
    targets = [F.interpolate(target.float(), out.shape[2:]).long() for out in network(data)]
    weights = [0.5**i for i in range(len(targets) - 1)]
    torch.backends.cudnn.benchmark = on_gpu

    def step(compiled: nn.Module) -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.float16, enabled=on_gpu):
            outputs = compiled(data)
            loss = sum(w * dice_ce(x, y) for w, x, y in zip(weights, outputs, targets, strict=False)) / sum(weights)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        scaler.step(optimizer)
        scaler.update()
        return float(loss.detach())  # that trainer reads it after every step

    with FlopCounterMode(display=False) as counter:
        step(network)
    chosen = torch.compile(network) if on_gpu else network
    return (lambda: step(chosen)), float(counter.get_total_flops())


def dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice of the batch and cross-entropy, with the one-hot target written out."""
    probabilities = logits.softmax(1)
    wanted = torch.zeros_like(probabilities, dtype=torch.bool).scatter_(1, target, 1)
    axes = (0, *range(2, logits.ndim))
    overlap, sizes = (probabilities * wanted).sum(axes), probabilities.sum(axes) + wanted.sum(axes)
    dice = ((2 * overlap + 1e-5) / (sizes + 1e-5).clamp_min(1e-8))[1:].mean()
    return F.cross_entropy(logits, target[:, 0]) - dice


def prediction(folder: Path, device: torch.device, quick: bool) -> dict[str, float]:
    """Seconds and memory of one volume whose spacing is not the network's, once the networks are there."""
    patch, features = ((16, 16, 16), 4) if quick else ((128, 128, 128), 32)
    shape = (20, 30, 30) if quick else VOLUME
    plan = models.small_plan(patch, features, 3 if quick else 6, most_features=320)
    labels = {"background": 0, **{f"label {i}": i for i in range(1, CLASSES)}}
    written = models.write_model(folder / "nnUNetTrainer__nnUNetPlans__3d_fullres", plan, folds=(0,), labels=labels)
    model = load_model(written, settings=PredictionSettings(device=str(device)))
    array = np.random.default_rng(0).normal(100, 20, (1, *shape)).astype(np.float32)
    model.predict(array[:, : patch[0], : patch[1], : patch[2]], (0.8, 0.8, 0.8))
    with UsageMeter(os.getpid()) as before:
        time.sleep(0.1)
    with UsageMeter(os.getpid()) as meter:
        model.predict(array, (0.8, 0.8, 0.8))
    used = meter.usage
    return {
        "seconds": used.seconds,
        "peak_memory_gb": used.peak_memory / 1e9,
        "extra_memory_gb": (used.peak_memory - before.usage.peak_memory) / 1e9,
        "logits_gb": 4 * CLASSES * float(np.prod(shape)) / 1e9,
    }


def matrix_product(device: torch.device, size: int) -> float:
    """Floating-point operations per second of a product of square matrices in bf16."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / timed(lambda: a @ b, device, 5, 20)


def timed(step: Callable[[], object], device: torch.device, repetitions: int, iterations: int) -> float:
    """Median seconds of a step, after some that are not counted."""
    found = []
    for number in range(repetitions + 1):
        _wait(device)
        started = time.perf_counter()
        for _ in range(iterations):
            step()
        _wait(device)
        if number:
            found.append((time.perf_counter() - started) / iterations)
    return statistics.median(found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    raise SystemExit(main())
