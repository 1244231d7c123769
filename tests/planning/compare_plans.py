"""Compare segplug's plans with those that `peer_plans.py` wrote: python tests/planning/compare_plans.py FILE.json"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segplug.errors import SegplugError
from segplug.model import Budget
from segplug.protocols import Planner
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.fingerprint_codec import decode_fingerprint
from segplug.runtime.plan_codec import encode_plan
from segplug_builtin import planners

PLANNERS: dict[str, Planner] = {
    "ExperimentPlanner": planners.plan_default,
    "nnUNetPlannerResEncM": planners.plan_resenc_m,
    "nnUNetPlannerResEncL": planners.plan_resenc_l,
    "nnUNetPlannerResEncXL": planners.plan_resenc_xl,
}


def plan_case(case: dict[str, Any]) -> dict[str, Any]:
    """segplug's plans for a made-up data set of `made_up_datasets.py`."""
    options, here = case["options"], Path("made_up.json")
    spacing = options.get("overwrite_target_spacing")
    budget = Budget(
        options.get("gpu_memory_target_in_gb"), None if spacing is None else tuple(spacing), options.get("plans_name")
    )
    dataset = parse_description(case["dataset_json"], "Dataset999_Synthetic", here)
    fingerprint = decode_fingerprint(case["fingerprint"], here)
    return encode_plan(PLANNERS[case["planner"]](fingerprint, dataset, budget))


def differences(ours: Any, theirs: Any, where: str = "") -> Iterator[str]:
    """Entries that differ; 1 and 1.0 do."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            yield from differences(ours.get(key), theirs.get(key), f"{where}/{key}")
    elif json.dumps(ours) != json.dumps(theirs):
        yield f"{where}: segplug {json.dumps(ours)}, nnunetv2 {json.dumps(theirs)}"


def main() -> int:
    cases = json.loads(Path(sys.argv[1]).read_text())
    differing = 0
    for case in cases:
        try:
            found = list(differences(plan_case(case), case["plans"])) if case["plans"] else ["nnunetv2 failed"]
        except SegplugError as error:
            found = [f"segplug failed: {error}"] if case["plans"] else []
        differing += bool(found)
        for line in found:
            sys.stdout.write(f"{case['name']}: {line}\n")
    sys.stdout.write(f"{differing} of {len(cases)} plans differ\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
