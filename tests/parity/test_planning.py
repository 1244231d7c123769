"""Fingerprints and plans are nnunetv2's, for every planner, other memory targets and other target spacings."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segplug.runtime.project import open_project
from segplug.stages import fingerprint as fingerprint_module
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.testing import KINDS

pytestmark = [pytest.mark.parity, pytest.mark.slow]

DRAWS = 1e6
"""Intensities drawn of phantoms by both programs; of real data sets all of nnU-Net's 10e7."""

OURS = {
    "ExperimentPlanner": "default",
    "nnUNetPlannerResEncM": "resenc_m",
    "nnUNetPlannerResEncL": "resenc_l",
    "nnUNetPlannerResEncXL": "resenc_xl",
}
FINGERPRINT = "fingerprint: entries that differ, means and deviations aside"
MOMENTS = "fingerprint: means and deviations of intensities, in deviations (nnunetv2 sums in float32)"
PLANS = {
    "default": "plans, default planner: entries that differ",
    "residual": "plans, ResEnc M, L and XL: entries that differ",
    "memory": "plans for other memory targets: entries that differ",
    "spacing": "plans with overridden target spacing: entries that differ",
}
Parity = Callable[..., None]
RunPeer = Callable[..., Any]
Rows = tuple[Parity, Parity]
Asked = list[tuple[str, dict[str, Any]]]


def jobs(memory_gb: float | None, flat: float | None, *, another: float) -> Asked:
    """Row of the table and what to plan.

    Args:
        memory_gb: for all that name no other.
        another: one that matters for images of this size.
        flat: for images of one slice its thickness, which a target spacing must keep.
    """

    def job(planner: str, memory: float | None = memory_gb, spacing: Any = None, name: str | None = None) -> Any:
        return {"planner": planner, "memory_gb": memory, "spacing": spacing, "plans_name": name}

    standard, *residual = OURS
    made = [("default", job(standard)), *(("residual", job(planner)) for planner in residual)]
    made += [("memory", job(standard, 4)), ("memory", job(residual[1], 11.5))]
    made += [("memory", job(standard, another, name="other"))]
    made += [("spacing", job(planner, spacing=[flat or 1.2, 1.1, 1.6])) for planner in (standard, residual[0])]
    return [*made, ("spacing", job(standard, spacing=[flat or 1.0, 4.0, 0.9], name="turned"))]


def thickness(kind: str) -> float | None:
    look = KINDS[kind].look
    return look.spacing[0] if look.shape[0] == 1 else None


@pytest.fixture
def rows(parity: Parity, no_differences: Parity) -> Rows:
    return parity, no_differences


@pytest.fixture(scope="module")
def phantoms(run_peer: RunPeer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Raw data sets of every kind, and what nnunetv2 makes of them."""
    folder = tmp_path_factory.mktemp("phantoms")
    asked = {}
    for number, (kind, made) in enumerate(KINDS.items()):
        if __import__("os").environ.get("ONLY", kind) != kind:
            continue
        made.write(folder / "raw" / dataset_of(number))
        asked[dataset_of(number)] = [job for _, job in jobs(made.memory_gb, thickness(kind), another=0.1)]
    job = {"draws": DRAWS, "datasets": asked}
    return folder, run_peer("peer_planning.py", job, raw=folder / "raw", preprocessed=folder / "theirs")


def dataset_of(number: int) -> str:
    return f"Dataset{601 + number}_Phantom"


@pytest.mark.parametrize("kind", KINDS)
def test_phantoms(
    kind: str, phantoms: tuple[Path, Any], tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, answers = phantoms
    monkeypatch.setattr(fingerprint_module, "TOTAL_DRAWS", DRAWS)
    name = dataset_of(list(KINDS).index(kind))
    compare(
        folder / "raw", name, jobs(KINDS[kind].memory_gb, thickness(kind), another=0.1), answers[name], tmp_path, rows
    )


def test_real_data(real_dataset: str, shared: Path, run_peer: RunPeer, tmp_path: Path, rows: Rows) -> None:
    raw = shared / "datasets"
    description = json.loads((raw / real_dataset / "dataset.json").read_text())
    asked = jobs(None, 999.0 if description["file_ending"] in {".png", ".bmp"} else None, another=40)
    job = {"draws": None, "datasets": {real_dataset: [each for _, each in asked]}}
    answers = run_peer("peer_planning.py", job, raw=raw, preprocessed=tmp_path / "theirs")
    compare(raw, real_dataset, asked, answers[real_dataset], tmp_path, rows)


def test_made_up_fingerprints(peer: Path, no_differences: Parity, tmp_path: Path) -> None:
    """The frozen sample of the planning tests, planned by nnunetv2 once more."""
    from compare_plans import plan_case
    from made_up_datasets import RANDOM_SEEDS, chosen_cases, digest, random_case

    script = Path(__file__).parents[1] / "planning" / "peer_plans.py"
    done = subprocess.run([str(peer), str(script), str(tmp_path / "plans.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = json.loads((tmp_path / "plans.json").read_text())
    cases = [*chosen_cases(), *(random_case(seed) for seed in RANDOM_SEEDS)]
    assert list(theirs) == [case["name"] for case in cases]
    differing = [case["name"] for case in cases if digest(plan_case(case)) != theirs[case["name"]]]
    no_differences("plans for made-up fingerprints of every kind: plans that differ", len(cases), differing)


def compare(raw: Path, name: str, asked: Asked, answer: Any, folder: Path, rows: Rows) -> None:
    from compare_plans import differences

    parity, no_differences = rows
    with open_project(raw, folder / "ours", workers=0) as project:
        fingerprint(project, name)
        ours, theirs = json.loads(project.workspace.fingerprint_file(name).read_text()), answer["fingerprint"]
        compare_moments(ours, theirs, parity)
        found = [f"{key}: {ours.get(key)}, nnunetv2 {theirs[key]}" for key in theirs if ours.get(key) != theirs[key]]
        no_differences(FINGERPRINT, 1, found)
        for (row, job), theirs in zip(asked, answer["plans"], strict=True):
            planner, spacing, plans_name = OURS[job["planner"]], job["spacing"], job["plans_name"]
            made = plan(
                project, name, planner=planner, memory_gb=job["memory_gb"], spacing=spacing, plans_name=plans_name
            )
            file = project.workspace.plans_file(name, made.plans_name)
            ours = json.loads(file.read_text())
            file.unlink()  # or the next plans of this name would keep its further configurations
            del ours["segplug"]
            compare_moments(ours, theirs, parity)
            no_differences(PLANS[row], 1, differences(ours, theirs, f"{name}, {job}"))


def compare_moments(ours: dict[str, Any], theirs: dict[str, Any], parity: Parity) -> None:
    """Means and deviations, in units of the deviation; they are taken out of both."""
    assert "error" not in theirs, theirs
    key = "foreground_intensity_properties_per_channel"
    found = []
    for channel, numbers in ours[key].items():
        other = theirs[key][channel]
        scale = other["std"] or 1.0
        found += [abs(numbers.pop(each) - other.pop(each)) / scale for each in ("mean", "std")]
    parity(MOMENTS, 1, max(found), 1e-5, section="Planning")
