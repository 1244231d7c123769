"""How fast a data set is preprocessed, and with how much memory."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from segplug.runtime.files import write_json
from segplug.runtime.plan_codec import encode_plan
from segplug.runtime.planned import find_configuration, find_plan
from segplug.runtime.process_tree import UsageMeter
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.workspace import Workspace
from segplug.stages.bench import SECONDS, BenchResult
from segplug.stages.preprocess import preprocess


def bench_preprocessing(
    project: Project,
    dataset: str | int | Path,
    configuration: str,
    *,
    repetitions: int = 3,
    plans_name: str | None = None,
) -> BenchResult:
    """Preprocess a data set into a folder that is removed, again and again, and tell what it took.

    The data set's own preprocessed cases are not touched. Each repetition starts its workers anew, as a command does.

    Args:
        dataset: id, name or path of a raw data set that was planned.

    Returns:
        Per repetition `seconds`, `cpu_seconds` and `peak_memory_mb` of the process tree, `cases_per_second`.

    Raises:
        UsageError, DataError, PluginError: see `segplug.stages.preprocess.preprocess`.
    """
    workspace = project.workspace
    raw = load_dataset(workspace.raw_folder(dataset))
    plan = find_plan(workspace, raw.name, plans_name)
    alone = replace(plan, configurations={configuration: find_configuration(plan, configuration)})
    done = []
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory(prefix="segplug-bench-") as name:
            own = Workspace(raw.folder.parent, Path(name), workspace.results)
            write_json(own.plans_file(raw.name, plan.plans_name), encode_plan(alone))
            shutil.copyfile(workspace.fingerprint_file(raw.name), own.fingerprint_file(raw.name))
            with UsageMeter() as meter, Project(own, project.kernel, workers=project.workers) as fresh:
                preprocess(fresh, raw.name, plans_name=plan.plans_name)
        done.append(
            {
                SECONDS: meter.usage.seconds,
                "cpu_seconds": meter.usage.cpu_seconds,
                "peak_memory_mb": meter.usage.peak_memory / 1e6,
                "cases_per_second": len(raw.cases) / meter.usage.seconds,
            }
        )
    settings = {
        "dataset": raw.name,
        "cases": len(raw.cases),
        "configuration": configuration,
        "plans": plan.plans_name,
        "workers": project.workers,
    }
    return BenchResult("preprocess", settings, done)
