"""Export made-up logits with segplug: python export.py OUT.npy CLASSES Z Y X NEW_Z NEW_Y NEW_X.

They come in slabs, as the sliding window hands them on; making them is not counted.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from figures import made_up_logits, memory_mb, peak_memory_mb, write

from segplug.kernel import Kernel
from segplug.model import LabelSet
from segplug.runtime.sliding_window import Slab
from segplug.runtime.streamed_export import Placement, StreamedExport

THICKNESS = 20
"""Slices in a slab."""


def main(target: str, classes: str, *sizes: str) -> None:
    count, shape, new_shape = int(classes), tuple(map(int, sizes[:3])), tuple(map(int, sizes[3:]))
    registry = Kernel(discover=False).registry
    resampler = registry.load(registry.resolve("resamplers", "resample_data_or_seg_to_shape"))
    spacing = tuple(new / old for old, new in zip(shape, new_shape, strict=True))
    labels = LabelSet({"background": 0, **{f"organ_{number}": number for number in range(1, count)}}, ())
    before, seconds, cpu, export = 0.0, 0.0, 0.0, None
    for start in range(0, shape[0], THICKNESS):
        logits = torch.from_numpy(made_up_logits(count, shape, start, min(start + THICKNESS, shape[0])))
        before = before or memory_mb()
        began, cpu_began = time.perf_counter(), time.process_time()
        if export is None:
            matrices = resampler.axis_matrices(shape, new_shape, spacing, (1.0, 1.0, 1.0), order=1)
            export = StreamedExport((0, 1, 2), Placement.whole(new_shape), labels, matrices=matrices)
        export.push(Slab(start, logits))
        seconds, cpu = seconds + time.perf_counter() - began, cpu + time.process_time() - cpu_began
    assert export is not None
    extra = peak_memory_mb() - before
    np.save(target, export.result())
    write({"inner_seconds": seconds, "cpu_inner_seconds": cpu, "extra_memory_mb": extra})


if __name__ == "__main__":
    main(*sys.argv[1:])
