"""What the comparisons with nnunetv2 share: the data sets at hand, and running a script with nnunetv2's Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.with_name("planning"))]  # made_up_plans; compare_plans, made_up_datasets
SHARED = (HERE.parents[1] / os.environ.get("SEGPLUG_SHARED", "../shared")).resolve()

RunPeer = Callable[..., Any]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`real_dataset`: every data set in the shared folder, whichever those are."""
    if "real_dataset" in metafunc.fixturenames:
        found = sorted(path.name for path in SHARED.glob("datasets/Dataset*"))
        metafunc.parametrize("real_dataset", found, scope="module")


@pytest.fixture(scope="session")
def run_peer(peer: Path) -> RunPeer:
    """`run_peer(script, job, raw=, preprocessed=, results=)`: the answer (JSON) of `script` to `job` (JSON)."""

    def run(script: str, job: Any, *, raw: Path, preprocessed: Path, results: Path | None = None) -> Any:
        folders = {"nnUNet_raw": raw, "nnUNet_preprocessed": preprocessed, "nnUNet_results": results or preprocessed}
        preprocessed.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [str(peer), "-W", "ignore", str(HERE / script), str(preprocessed / "answer.json")],
            input=json.dumps(job),
            env={**os.environ, **{name: str(path) for name, path in folders.items()}},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{script} failed in nnunetv2's environment:\n{done.stderr[-4000:]}"
        return json.loads((preprocessed / "answer.json").read_text())

    return run


@pytest.fixture(scope="session")
def no_differences(parity: Callable[..., None]) -> Callable[..., None]:
    """`no_differences(what, cases, lines, section=)`: a row for what must be equal; a failure shows the lines."""

    def record(what: str, cases: int, lines: Iterable[str], *, section: str = "Planning") -> None:
        found = list(lines)
        try:
            parity(what, cases, len(found), 0, section=section)
        except AssertionError as error:
            pytest.fail("\n".join([str(error), *found[:30]]))

    return record
