"""segplug called as a user does, on the bundled sample, with this plugin installed beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from segplug.sample import DATASET, sample_root

PLANS = "segplugCompactPlans"


@dataclass(frozen=True)
class Segplug:
    """Calls the program in a folder, with preprocessed data and results below it."""

    folder: Path
    python: Path = Path(sys.executable)

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        ours = ("nnUNet", "SEGPLUG", "MLFLOW")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return subprocess.Popen(
            [self.python, "-m", "segplug", *map(str, arguments)],
            cwd=self.folder,
            env=clean | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            out, said = process.communicate(timeout=500)
        assert process.returncode == code, out + said
        return subprocess.CompletedProcess(process.args, process.returncode, out, said)

    def options(self, text: str) -> None:
        """What [options.track] has from now on."""
        paths = f'[paths]\nraw = "{sample_root()}"\npreprocessed = "preprocessed"\nresults = "results"\n'
        defaults = '[defaults]\nworkers = 0\ndevice = "cpu"\nprecision = "fp32"\n'
        (self.folder / "segplug.toml").write_text(f"{paths}{defaults}[options.track]\n{text}")

    @property
    def fold(self) -> Path:
        """Of the training."""
        return self.folder / "results" / DATASET / f"nnUNetTrainer__{PLANS}__2d" / "fold_0"

    @property
    def training(self) -> tuple[str, ...]:
        """Words of a training of seconds, but for its epochs."""
        short = {"iterations_per_epoch": 1, "val_iterations_per_epoch": 1, "batch_size": 2}
        settings = [word for name, value in short.items() for word in ("--set", f"trainer.{name}={value}")]
        return ("train", "4", "2d", "0", *settings)


@pytest.fixture(scope="session")
def preprocessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Preprocessed data whose only fold validates one case."""
    segplug = Segplug(tmp_path_factory.mktemp("prepared"))
    segplug.options("")
    segplug("fingerprint", "4")
    segplug("plan", "4", "--planner", "compact")
    segplug("preprocess", "4", "-c", "2d")
    names = sorted(file.name.partition(".")[0] for file in (sample_root() / DATASET / "labelsTr").iterdir())
    splits = [{"train": names[1:], "val": names[:1]}]
    (segplug.folder / "preprocessed" / DATASET / "splits_final.json").write_text(json.dumps(splits))
    return segplug.folder / "preprocessed"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's without experiments; MLflow takes seconds to make one."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").get_experiment_by_name("segplug")
    return file


@pytest.fixture
def segplug(tmp_path: Path, preprocessed: Path) -> Segplug:
    """A project that nothing was trained in."""
    shutil.copytree(preprocessed, tmp_path / "preprocessed")
    return Segplug(tmp_path)


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> str:
    """Tracking URI of a store in MLflow that nothing was tracked in."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"
