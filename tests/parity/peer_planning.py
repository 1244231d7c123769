"""Fingerprints and plans of nnunetv2: reads a job from standard input, run by the Python of nnunetv2's environment.

    {"draws": 1e6 or null, "datasets": {"Dataset601_X": [{"planner": "ExperimentPlanner", "memory_gb": null,
     "spacing": null, "plans_name": null}, ...]}}

writes {"Dataset601_X": {"fingerprint": {...}, "plans": [{...}, ...]}} into the file that is its argument; where
nnunetv2 fails, {"error": "..."} stands for the result. Its worker processes are replaced by calls in this process.
"""

import contextlib
import json
import multiprocessing
import os
import sys


class InThisProcess:
    """Stands in for a pool of processes, each of which would import everything anew."""

    _pool = ()

    def Pool(self, _count):  # noqa: N802
        return contextlib.nullcontext(self)

    def starmap_async(self, function, arguments):
        results = [function(*each) for each in arguments]
        return type("Result", (), {"ready": lambda _: True, "get": lambda _: results})()


def attempt(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def fingerprint(name, draws):
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    extractor = DatasetFingerprintExtractor(name)
    extractor.show_progress_bar = False
    extractor.num_foreground_voxels_for_intensitystats = draws or extractor.num_foreground_voxels_for_intensitystats
    extractor.run(overwrite_existing=True)
    return read(name, "dataset_fingerprint")


def plan(name, job):
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments

    with torch.device("meta"):  # networks are built for their cost alone: here that takes no memory
        made = plan_experiments(
            [name],
            job["planner"],
            job["memory_gb"],
            overwrite_target_spacing=job["spacing"],
            overwrite_plans_name=job["plans_name"],
        )
    found = read(name, made)
    os.unlink(path_of(name, made))
    return found


def path_of(name, what):
    from nnunetv2.paths import nnUNet_preprocessed

    return os.path.join(nnUNet_preprocessed, name, f"{what}.json")


def read(name, what):
    with open(path_of(name, what), encoding="utf-8") as file:
        return json.load(file)


def main():
    multiprocessing.get_context = lambda *_: InThisProcess()
    job, answer = json.load(sys.stdin), {}
    with contextlib.redirect_stdout(sys.stderr):
        for name, plans in job["datasets"].items():
            found = attempt(fingerprint, name, job["draws"])
            answer[name] = {"fingerprint": found, "plans": [attempt(plan, name, each) for each in plans]}
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
