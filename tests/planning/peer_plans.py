"""What nnunetv2 plans for made-up data sets. Run by the Python of an environment with nnunetv2 2.8.1:

    python tests/planning/peer_plans.py tests/planning/data/nnunetv2_plans.json     the frozen sample: digests
    python tests/planning/peer_plans.py OUT.json FIRST_SEED COUNT                   random data sets with whole plans

`compare_plans.py` compares the latter with segplug's.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any


def plan(case: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """nnunetv2's plans, or None where it fails."""
    import torch
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
        residual_encoder_unet_planners as residual,
    )

    name = "Dataset999_Synthetic"
    raw, preprocessed = folder / "raw" / name, folder / "preprocessed" / name
    for path in (raw, preprocessed):
        path.mkdir(parents=True, exist_ok=True)
    for old in preprocessed.iterdir():
        old.unlink()
    listed = {"x": {"images": ["x_0000.nii.gz"], "label": "x.nii.gz"}}
    (raw / "dataset.json").write_text(json.dumps({**case["dataset_json"], "dataset": listed}))
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(case["fingerprint"]))
    planner = getattr(residual, case["planner"], ExperimentPlanner)
    try:
        # networks are built for their cost alone: on the meta device that takes no memory
        with torch.device("meta"), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            made = planner(name, **case["options"])
            made.plan_experiment()
    except Exception as error:
        sys.stderr.write(f"{case['name']}: nnunetv2 fails: {type(error).__name__}: {error}\n")
        return None
    plans: dict[str, Any] = json.loads((preprocessed / f"{made.plans_identifier}.json").read_text())
    return plans


def main() -> None:
    out, *numbers = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update({f"nnUNet_{part}": f"{folder}/{part}" for part in ("raw", "preprocessed", "results")})
        sys.path.insert(0, str(Path(__file__).parent))
        from made_up_datasets import RANDOM_SEEDS, chosen_cases, digest, random_case

        if numbers:
            first, count = map(int, numbers)
            cases = [random_case(seed) for seed in range(first, first + count)]
            found: Any = [{**case, "plans": plan(case, Path(folder))} for case in cases]
        else:
            cases = [*chosen_cases(), *(random_case(seed) for seed in RANDOM_SEEDS)]
            found = {case["name"]: digest(plan(case, Path(folder)) or {"configurations": {}}) for case in cases}
    Path(out).write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
