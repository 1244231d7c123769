"""What the README shows is run: commands and Python of segplug, and what needs no segplug without it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
import SimpleITK as sitk

from segplug.sample import DATASET, sample_root

from .alone import interpreter, run_alone
from .models import Recipe

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- (run|alone) -->\n\n```(console|python)\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an image of the sample as file and as array."""
    folder = tmp_path_factory.mktemp("readme")
    Recipe(patch=(32, 48, 32), mirror_axes=(0,)).write(folder).rename(folder / "MODEL_FOLDER")
    (folder / "images").mkdir()
    image = sorted((sample_root() / DATASET / "imagesTr").iterdir())[0]
    shutil.copy(image, folder / "images")
    np.save(folder / "image.npy", sitk.GetArrayFromImage(sitk.ReadImage(str(image)))[None])
    return folder


def test_every_block_in_order(folder: Path) -> None:
    assert [how for how, _, _ in BLOCKS] == ["run"] * 3 + ["alone"] * 2 + ["run"]
    only = interpreter(folder / "only")
    for how, kind, text in BLOCKS:
        if kind == "console":
            for line in text.splitlines():
                words = line.removeprefix("$ segplug ").split()
                run([sys.executable, "-m", "segplug", *words], folder)
        elif how == "run":
            run([sys.executable, "-c", text], folder)
        else:
            (folder / "program.py").write_text(text)
            done = run_alone(only, folder / "program.py", cwd=folder)
            assert done.returncode == 0, done.stderr
    (name,) = (file.name for file in (folder / "out-onnxruntime").glob("*.nii.gz"))
    results = [
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / out / name))) for out in ("out-onnxruntime", "out-openvino")
    ]
    alone = np.load(folder / "labels.npy")
    # OpenVINO's own choice is bf16 where the CPU has it; that flips near ties, for weights are random here. How well
    # trained networks agree is tested in test_predictors.py
    in_bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert np.mean(results[0] == results[1]) >= (0.98 if in_bf16 else 0.9999)
    assert np.mean(results[0] == alone) >= 0.9999
    assert len(np.unique(alone)) > 1


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_table_names_what_is_exported(tmp_path: Path) -> None:
    for name in ("fold_0.onnx", "recipe.json", "predict.py", "plans.json", "dataset.json"):
        assert f"`{name}`" in README
