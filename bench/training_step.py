"""One training step of the default Hippocampus plan without data loading: forward, loss, backward, optimiser.

    nox -s bench -- training_step

To reach: >= 1.0x in fp32, >= 1.9x with bf16, which segplug takes by itself where the CPU has it (nnunetv2 computes in
fp32 on a CPU).
"""

from __future__ import annotations

import side_by_side as bench
import training_data
from segplug.runtime.device import cpu_has_bf16


def main() -> int:
    """Run it; 1 if an aim is missed."""
    benchmark = bench.Benchmark("training_step", bench.arguments(__doc__, repetitions=3))
    steps = "1" if benchmark.quick else "4"
    with benchmark.folder() as folder:
        data = training_data.hippocampus(folder, benchmark.peer, 5, 4 if benchmark.quick else None)
        programs = {
            "fp32": bench.Program([data.own_script("training_step.py", steps, "fp32")]),
            bench.NNUNET: bench.Program(
                [[benchmark.peer or "", bench.PEER_SCRIPTS / "training_step.py", data.dataset, steps]], data.variables
            ),
        }
        if cpu_has_bf16():
            programs["bf16"] = bench.Program([data.own_script("training_step.py", steps, "auto")])
        runs = benchmark.alternate("training step", programs)
        theirs = {bench.NNUNET: runs[bench.NNUNET]} if bench.NNUNET in runs else {}
        what = "training step, default Hippocampus plan"
        for name, at_least in (("fp32", 1.0), ("bf16", 1.9)):
            if name not in runs:
                benchmark.not_here(f"{what}, {name}", "s", at_least=at_least, remark=bench.WITHOUT_BF16)
                continue
            mine = {bench.SEGPLUG: runs[name], **theirs}
            remark = f"batch {runs[name][0].figures['batch_size']}, patch 40x56x40"
            benchmark.compare(f"{what}, {name}", mine, "step_seconds", "s", at_least=at_least, remark=remark)
    return benchmark.finish()


if __name__ == "__main__":
    raise SystemExit(main())
