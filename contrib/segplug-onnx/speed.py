"""Times and agreement of a model's network on torch, ONNX Runtime and OpenVINO.

    python speed.py MODEL_FOLDER IMAGES [--labels LABELS] [--patches 12] [--threads 1] [--calibration 32]
        [--without ROW]

MODEL_FOLDER's fold 0 is exported and quantised (from the first half of IMAGES) into a temporary folder. Patches of the
second half then go through every engine in turn, one patch each and round after round, so that what else the machine
does meets all alike. Printed are medians of CPU time and wall time per patch, the share of voxels whose label is
torch's in float32, and, with LABELS, the mean Dice of whole images against them (no mirroring). One table in Markdown.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROWS = (
    "torch fp32",
    "torch bf16",
    "ONNX Runtime fp32",
    "ONNX Runtime int8",
    "OpenVINO fp32",
    "OpenVINO auto",
    "OpenVINO int8",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--patches", type=int, default=12)
    parser.add_argument("--calibration", type=int, default=32, help="Patches that int8 is made from.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--without", action="append", default=[], help="A row to leave out (repeat).")
    given = parser.parse_args()

    import torch

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = shutil.copytree(given.model, Path(folder) / given.model.name)
        first, second = _halves(given.images, Path(folder))
        rows = [name for name in ROWS if name not in given.without]
        times, labels = measure(model, first, second, given.patches, given.threads, rows, given.calibration)
        scores = {} if given.labels is None else dice(model, second, given.labels)
    wanted = labels["torch fp32"]
    lines = [
        f"{given.model.name}, fold 0, {given.patches} patches, threads: {given.threads}\n",
        "| engine | CPU s | wall s | labels as torch fp32 | mean Dice |",
        "|---|---|---|---|---|",
    ]
    for name in rows:
        cpu, wall = (statistics.median(values) for values in zip(*times[name], strict=True))
        alike = float(np.mean(labels[name] == wanted))
        score = f"{scores[name]:.4f}" if name in scores else ""
        lines.append(f"| {name} | {cpu:.3f} | {wall:.3f} | {alike:.6f} | {score} |")
    sys.stdout.write("\n".join(lines) + "\n")


def measure(
    model: Path,
    calibration: Path,
    images: Path,
    count: int,
    threads: int,
    rows: Sequence[str],
    calibration_count: int,
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, Any]]:
    """Seconds (CPU, wall) of each engine and patch, and the labels (n, *patch) that it gives them."""
    import torch
    from segplug_onnx.calibration import calibration_patches
    from segplug_onnx.on_onnxruntime import open_session
    from segplug_onnx.on_openvino import compile_network
    from segplug_onnx.stage import export_model

    import segplug
    from segplug_builtin.packed_networks import packed

    with segplug.open_project(None, None, None, workers=0) as project:
        trained = segplug.load_model(model, folds=[0], project=project).trained
        export_model(project, trained, calibration=calibration, patches=calibration_count)
        patches = calibration_patches(project, trained, images, count)
    (network,) = trained.networks(torch.device("cpu"))
    files = {kind: model / "onnx" / f"fold_0{kind}" for kind in (".onnx", "_int8.onnx", "_int8.xml")}

    def with_torch(dtype: torch.dtype) -> Callable[[Any], Any]:
        laid_out = packed(network, dtype)  # as segplug's own predictor does

        def run(x: Any) -> Any:
            cast = dtype != torch.float32 and laid_out is None
            with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=cast):
                return (laid_out or network)(torch.from_numpy(x)).float().numpy()

        return run

    def session(kind: str) -> Callable[[Any], Any]:
        opened = open_session(files[kind], threads)
        return lambda x: opened.run(None, {"image": x})[0]

    def compiled(kind: str, precision: str) -> Callable[[Any], Any]:
        opened = compile_network(files[kind], precision, threads)
        return lambda x: opened(x)[0].copy()

    engines: dict[str, Callable[[Any], Any]] = {
        "torch fp32": with_torch(torch.float32),
        "torch bf16": with_torch(torch.bfloat16),
        "ONNX Runtime fp32": session(".onnx"),
        "ONNX Runtime int8": session("_int8.onnx"),
        "OpenVINO fp32": compiled(".onnx", "fp32"),
        "OpenVINO auto": compiled(".onnx", "auto"),
        "OpenVINO int8": compiled("_int8.xml", "int8"),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    labels: dict[str, list[Any]] = {name: [] for name in rows}
    for name in rows:  # what is done once: memory, kernels
        engines[name](patches[:1])
    for patch in patches:
        for name in rows:
            cpu, wall = time.process_time(), time.perf_counter()
            logits = engines[name](patch[None])
            times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
            labels[name].append(logits[0].argmax(0))
    return times, {name: np.stack(found) for name, found in labels.items()}


def dice(model: Path, images: Path, references: Path) -> dict[str, float]:
    """Mean Dice over cases and foreground labels of whole predictions."""
    import segplug

    found = {}
    calls = [("torch", "fp32"), *((e, p) for e in ("onnxruntime", "openvino") for p in ("fp32", "int8"))]
    titles = {"torch": "torch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
    with segplug.open_project(None, None, None, workers=0) as project:
        loaded = segplug.load_model(model, folds=[0], project=project)
        ending = loaded.trained.dataset.file_ending
        for engine, precision in calls:
            settings = segplug.PredictionSettings(device="cpu", precision=precision, mirroring=False)
            out = model / f"{engine}-{precision}"
            segplug.predict_folder(project, images, out, model, folds=[0], settings=settings, predictor=engine)
            of_cases = {file.name.removesuffix(ending): references / file.name for file in out.glob(f"*{ending}")}
            evaluation = segplug.evaluate(project, of_cases, out, loaded.labels, file_ending=ending)
            found[f"{titles[engine]} {precision}"] = evaluation.foreground_mean["Dice"]
    return found


def _halves(images: Path, folder: Path) -> tuple[Path, Path]:
    """Folders with links to the first and the second half of the cases."""
    cases = sorted({file.name.rpartition("_")[0] for file in images.iterdir() if not file.name.startswith(".")})
    halves = folder / "first", folder / "second"
    for half, names in zip(halves, (cases[: len(cases) // 2], cases[len(cases) // 2 :]), strict=True):
        half.mkdir()
        for name in names:
            for file in images.glob(f"{name}_*"):
                (half / file.name).symlink_to(file.resolve())
    return halves


if __name__ == "__main__":
    main()
