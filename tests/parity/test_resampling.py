"""nnU-Net's planners that resample by torch or not at all: arrays, plans and preprocessed cases beside nnunetv2's own.

What is exported by such plans is compared in tests/prediction.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare_plans import differences
from test_preprocessing import compare, jobs_of, planned, run_all

from segplug import ComponentRef
from segplug.kernel import Kernel
from segplug.runtime.raw_dataset import load_dataset
from segplug.testing import KINDS

pytestmark = pytest.mark.parity

REGISTRY = Kernel(discover=False).registry
PLANNERS = {
    "ResEncUNetPlanner": "resenc",
    "nnUNetPlanner_torchres": "default_torchres",
    "nnUNetPlannerResEncL_torchres": "resenc_l_torchres",
    "nnUNetPlannerResEncL_torchres_sepz": "resenc_l_torchres_sepz",
    "nnUNetPlannerResEncL_noResampling": "resenc_l_noresampling",
}
CHOSEN = ("coarse first axis", "CT with cascade", "2D")

SHAPES = [
    ((9, 20, 21), (14, 31, 25)),
    ((9, 20, 21), (9, 33, 13)),
    ((12, 17, 30), (5, 17, 11)),
    ((1, 40, 32), (1, 27, 50)),
]
SPACINGS = [((1, 1, 1), (1, 1, 1)), ((5, 1, 1), (2.5, 1, 1)), ((1, 1, 1), (1, 1, 4)), ((999, 1, 1), (999, 2, 2))]
OPTIONS = [
    {"force_separate_z": False, "memefficient_seg_resampling": False},
    {"force_separate_z": None, "memefficient_seg_resampling": False, "separate_z_anisotropy_threshold": 3},
    {"force_separate_z": True, "memefficient_seg_resampling": True},
    {"force_separate_z": True, "mode": "nearest-exact", "aniso_axis_mode": "linear"},
    {"mode": "nearest", "num_threads": 2},
]


def test_arrays(run_peer: Callable[..., Any], parity: Callable[..., None], tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    arrays, jobs = {}, []
    for number, (old, new) in enumerate(SHAPES):
        arrays[f"image{number}"] = random.standard_normal((2, *old)).astype(np.float32)
        blocks = random.choice([-1, 0, 1, 2, 200], (1, *(-(-n // 3) for n in old))).astype(np.int16)
        arrays[f"label{number}"] = np.kron(blocks, np.ones((1, 3, 3, 3), np.int16))[:, : old[0], : old[1], : old[2]]
        for (spacing, new_spacing), options in itertools.product(SPACINGS, OPTIONS):
            for key, is_seg in ((f"image{number}", False), (f"label{number}", True)):
                place = {"array": key, "new_shape": new, "spacing": spacing, "new_spacing": new_spacing}
                full = {"is_seg": is_seg, **options}
                jobs.append({"function": "resample_torch_fornnunet", **place, "options": full})
        jobs.append({"function": "no_resampling_hack", **place, "options": {}})
    np.savez(tmp_path / "arrays.npz", **arrays)
    asked = {"arrays": str(tmp_path / "arrays.npz"), "jobs": jobs}
    run_peer("peer_resampling.py", asked, raw=tmp_path, preprocessed=tmp_path / "theirs")
    with np.load(tmp_path / "theirs" / "results.npz") as theirs:
        for number, job in enumerate(jobs):
            resample = REGISTRY.build("resamplers", ComponentRef(job["function"], job["options"]))
            found = resample(arrays[job["array"]], job["new_shape"], job["spacing"], job["new_spacing"])
            expected = theirs[str(number)]
            assert found.shape == expected.shape, job
            if job["array"].startswith("label"):
                unlike = float(np.mean(found != expected))
                parity("torch: labels, share of voxels that differ", 1, unlike, 0, section="Preprocessing")
            else:
                far = float(np.abs(found - expected).max())
                parity("torch: images, difference", 1, far, 1e-6, section="Preprocessing")


def test_plans_and_cases(
    run_peer: Callable[..., Any],
    parity: Callable[..., None],
    no_differences: Callable[..., None],
    tmp_path: Path,
) -> None:
    asked, plans, cases = {}, {}, []
    for number, kind in enumerate(CHOSEN):
        name, made = f"Dataset{601 + number}_Phantom", KINDS[kind]
        raw = made.write(tmp_path / "raw" / name)
        jobs = [{"planner": p, "memory_gb": made.memory_gb, "spacing": None, "plans_name": None} for p in PLANNERS]
        asked[name] = jobs
        for theirs, ours in PLANNERS.items():
            file = planned(tmp_path / "raw", name, tmp_path / "ours", planner=ours, memory_gb=made.memory_gb)
            plans[name, theirs] = json.loads(file.read_text())
            if theirs != "ResEncUNetPlanner":  # resamples as the default planner does
                cases += jobs_of(raw, file, list(load_dataset(raw).cases)[:1])
    answers = run_peer(
        "peer_planning.py", {"draws": 1e5, "datasets": asked}, raw=tmp_path / "raw", preprocessed=tmp_path / "theirs"
    )
    for name, jobs in asked.items():
        for job, theirs in zip(jobs, answers[name]["plans"], strict=True):
            ours = plans[name, job["planner"]]
            for raw_plans in (ours, theirs):  # these come from the fingerprint, which is compared elsewhere
                raw_plans.pop("foreground_intensity_properties_per_channel", None)
            ours.pop("segplug")
            found = differences(ours, theirs, f"{name}, {job['planner']}")
            no_differences("plans, planners of other resampling: entries that differ", 1, found)
    record = partial(parity, section="Preprocessing")
    for done in run_all(run_peer, cases, tmp_path).values():
        for job, file, answer in done:
            compare(job, file, answer, record, "phantoms, other resampling")
