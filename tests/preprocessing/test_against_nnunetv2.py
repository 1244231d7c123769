"""Preprocessing beside nnunetv2's own, case by case: images within 1e-5 of their range, labels on 99.99 % of voxels.

On phantoms of every kind and on the first and last case of each real data set. nnunetv2 runs as a program of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from segplug.kernel import Kernel
from segplug.runtime.case_reading import read_image, read_labels
from segplug.runtime.class_locations import class_locations
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.preprocessing import preprocess_image
from segplug.runtime.project import open_project
from segplug.runtime.raw_dataset import load_dataset
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.testing.phantoms import Phantom, write_phantom_dataset

pytestmark = [pytest.mark.parity, pytest.mark.slow]

PROGRAM = """
import json, os, sys
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, sys.argv[1])
import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

if __name__ == "__main__":
    for number, job in enumerate(json.loads(sys.stdin.read())):
        plans = PlansManager(job["plans"])
        data, target, properties = DefaultPreprocessor(verbose=False).run_case(
            job["images"], job["label"], plans, plans.get_configuration(job["configuration"]), job["dataset"]
        )
        keys = ("shape_before_cropping", "bbox_used_for_cropping", "shape_after_cropping_and_before_resampling")
        counts = {str(key): len(voxels) for key, voxels in properties.get("class_locations", {}).items()}
        kept = {key: np.asarray(properties[key]).tolist() for key in keys}
        kept["spacing"] = [float(s) for s in properties["spacing"]]
        np.savez(f"{sys.argv[1]}/{number}.npz", data=data, target=target, kept=json.dumps([kept, counts]))
"""

REGISTRY = Kernel(discover=False).registry

PHANTOMS = {
    "two channels": Phantom((16, 26, 22), (1.4, 1.0, 0.8), 1.4, ("T1", "T2")),
    "CT": Phantom((18, 40, 38), (2.5, 0.9, 0.9), 1.5, ("CT",), classes=4),
    "coarse first axis": Phantom((8, 40, 38), (6.0, 0.9, 0.9), 1.3, ("CT",)),
    "coarse second axis": Phantom((36, 8, 34), (0.9, 6.0, 0.9), 1.3),
    "coarse last axis": Phantom((36, 34, 8), (0.9, 0.9, 6.0), 1.3),
    "single slice": Phantom((1, 40, 36), (5.0, 1.0, 1.0), 1.3),
    "tiny": Phantom((5, 6, 4), (1.0, 1.0, 1.0), 1.3),
    "regions": Phantom((14, 24, 22), (1.5, 1.0, 1.0), 1.3, classes=3, regions=True),
    "ignore label": Phantom((14, 24, 22), (1.5, 1.0, 1.0), 1.3, ignored=0.5),
    "other names": Phantom((10, 20, 18), (1.5, 1.0, 1.0), 1.3, ("noNorm", "rescale_to_0_1", "rgb_to_0_1")),
    "png": Phantom((1, 40, 36), (999.0, 1.0, 1.0), channels=("R", "G"), file_ending=".png"),
    "tiff": Phantom((12, 20, 18), (2.0, 1.0, 1.0), 1.3, file_ending=".tif"),
}
REAL = (
    "Dataset004_Hippocampus",
    "Dataset027_ACDC",
    "Dataset028_ACDCscribbles",
    "Dataset042_BraTS2015",
    "Dataset120_Nuclei",
    "Dataset130_DrosophilaVNC",
)


@pytest.mark.parametrize("kind", PHANTOMS)
def test_phantoms(kind: str, peer: Path, tmp_path: Path) -> None:
    name = "Dataset602_Phantom"
    raw = write_phantom_dataset(tmp_path / "raw" / name, PHANTOMS[kind], cases=3, seed=len(kind))
    with open_project(tmp_path / "raw", tmp_path / "preprocessed", workers=0) as project:
        fingerprint(project, name)
        plan(project, name)
        plans = project.workspace.plans_file(name, "nnUNetPlans")
    compare(peer, raw, plans, load_dataset(raw).cases, tmp_path)


@pytest.mark.parametrize("name", REAL)
def test_real_data(name: str, shared: Path, peer: Path, tmp_path: Path) -> None:
    raw = shared / "datasets" / name
    cases = list(load_dataset(raw).cases)
    compare(peer, raw, shared / "reference" / name / "nnUNetPlans.json", [cases[0], cases[-1]], tmp_path)


def compare(peer: Path, folder: Path, plans: Path, names: Iterable[str], scratch: Path) -> None:
    raw, the_plan = load_dataset(folder), read_plan(plans)
    reader = REGISTRY.build("readers", the_plan.reader)
    jobs = [
        (raw.cases[name], configuration, labelled)
        for name in names
        for configuration in the_plan.configurations.values()
        for labelled in (True, False)
    ]
    asked = [
        {
            "plans": str(plans),
            "configuration": configuration.name,
            "dataset": str(folder / "dataset.json"),
            "images": [str(path) for path in case.images],
            "label": str(case.label) if labelled else None,
        }
        for case, configuration, labelled in jobs
    ]
    command = [peer, "-W", "ignore", "-c", PROGRAM, scratch]
    subprocess.run(command, input=json.dumps(asked), text=True, check=True, capture_output=True)
    for number, (case, configuration, labelled) in enumerate(jobs):
        with np.load(scratch / f"{number}.npz") as file:
            expected, target, (properties, counts) = file["data"], file["target"], json.loads(str(file["kept"]))
        image = read_image(reader, case, raw.description.num_channels)
        labels = read_labels(reader, case.label) if labelled and case.label is not None else None
        data, found, kept = preprocess_image(image, labels, the_plan, configuration, REGISTRY)
        where = f"{case.name} {configuration.name}"
        assert data.shape == expected.shape, where
        assert np.abs(data - expected).max() <= 1e-5 * np.ptp(expected), where
        for key in properties:
            assert np.allclose(kept[key], properties[key], rtol=1e-6, atol=0), (where, key)
        if found is not None:
            assert np.mean(found == target) >= 0.9999, where
            found_counts = {str(k): len(v) for k, v in class_locations(found, raw.description.labels).items()}
            assert found_counts == counts, where
