"""Run by the Python of nnunetv2's environment: python export.py OUT.npy CLASSES Z Y X NEW_Z NEW_Y NEW_X.

The logits are in half precision, as nnunetv2's sliding window leaves them.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "own"))


def main(target: str, classes: str, *sizes: str) -> None:
    from figures import made_up_logits, memory_mb, peak_memory_mb, write
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    count, shape, new_shape = int(classes), tuple(map(int, sizes[:3])), tuple(map(int, sizes[3:]))
    resample = partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None)
    plans = SimpleNamespace(transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2])
    spacing = [new / old for old, new in zip(shape, new_shape, strict=True)]
    configuration = SimpleNamespace(spacing=spacing, resampling_fn_probabilities=resample)
    labels = LabelManager({"background": 0, **{f"organ_{number}": number for number in range(1, count)}}, None)
    properties = {
        "spacing": [1.0, 1.0, 1.0],
        "shape_after_cropping_and_before_resampling": new_shape,
        "shape_before_cropping": new_shape,
        "bbox_used_for_cropping": [[0, size] for size in new_shape],
    }
    logits = torch.empty((count, *shape), dtype=torch.half)
    for start in range(0, shape[0], 20):
        stop = min(start + 20, shape[0])
        logits[:, start:stop] = torch.from_numpy(made_up_logits(count, shape, start, stop)).half()
    before = memory_mb()
    began, cpu_began = time.perf_counter(), time.process_time()
    threads = len(os.sched_getaffinity(0))
    result = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, labels, properties, num_threads_torch=threads
    )
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    extra = peak_memory_mb() - before
    np.save(target, result)
    write({"inner_seconds": seconds, "cpu_inner_seconds": cpu, "extra_memory_mb": extra})


if __name__ == "__main__":
    main(*sys.argv[1:])
