"""A folder of the user's, and segplug called in it as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from segplug.sample import sample_root

LEFT_OUT = ("segplug_foundation", "_editable_impl_segplug_foundation", "timm")


@dataclass(frozen=True)
class Segplug:
    """Calls the program.

    Args:
        folder: where it is called; results are below it.
        python: of the environment.
        raw: folder of raw data sets.
    """

    folder: Path
    python: Path
    raw: Path

    def __call__(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("nnUNet", "SEGPLUG"))}
        done = subprocess.run(
            [self.python, "-m", "segplug", *map(str, arguments)],
            cwd=self.folder,
            env=clean | self._places(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def _places(self) -> dict[str, str]:
        places = {"raw": self.raw, "preprocessed": self.folder / "preprocessed", "results": self.folder / "results"}
        return {f"nnUNet_{name}": str(place) for name, place in places.items()}


@pytest.fixture(scope="session")
def segplug(tmp_path_factory: pytest.TempPathFactory) -> Segplug:
    """In this environment, with the bundled sample as raw data."""
    return Segplug(tmp_path_factory.mktemp("project"), Path(sys.executable), sample_root())


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Segplug:
    """Another environment, which has the plugin, and another folder without any data."""
    return _environment(tmp_path_factory.mktemp("elsewhere"), ())


@pytest.fixture(scope="session")
def without_plugin(tmp_path_factory: pytest.TempPathFactory) -> Segplug:
    """An environment with segplug, and with neither this plugin nor timm."""
    return _environment(tmp_path_factory.mktemp("without"), LEFT_OUT)


def _environment(folder: Path, left_out: Sequence[str]) -> Segplug:
    """A virtual environment with what is installed in this one, by links, but for some distributions."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    target = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "env")}))
    roots = [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    for root in roots:
        for entry in root.iterdir():
            stem = entry.name.partition("-")[0].partition(".")[0]
            there = target / entry.name
            if stem not in left_out and not there.exists() and entry.name != "base.pth":
                there.symlink_to(entry)
    return Segplug(folder, python, folder / "raw")
