"""What an epoch takes beside its iterations: plot, log, checkpoint, switching between training and validation.

    nox -s bench -- epoch_overhead

To reach: at most 2 % of an epoch of 250 training and 50 validation iterations, default Hippocampus plan. Epochs of few
iterations are trained; what they take longer than their iterations do without all that is the overhead, whether it is
waited for or slows the iterations down from the background.
"""

from __future__ import annotations

import side_by_side as bench
import training_data

PERCENT = 2


def main() -> int:
    """Run it; 1 if the aim is missed."""
    benchmark = bench.Benchmark("epoch_overhead", bench.arguments(__doc__, repetitions=3))
    with benchmark.folder() as folder:
        data = training_data.hippocampus(folder, None, 5, 4 if benchmark.quick else None)
        program = bench.Program([data.own_script("epoch_overhead.py", "2" if benchmark.quick else "5")])
        runs = benchmark.alternate("epochs", {bench.SEGPLUG: program})[bench.SEGPLUG]
        told = f"{runs[0].value('overhead_s'):.2f} s of {runs[0].value('epoch_s'):.0f} s"
        benchmark.below("epoch overhead", runs, "overhead_percent", "%", limit=PERCENT, remark=told)
    return benchmark.finish()


if __name__ == "__main__":
    raise SystemExit(main())
