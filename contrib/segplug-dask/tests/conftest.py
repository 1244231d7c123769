"""segplug called as a user does, with work on cases done by dask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from segplug.sample import sample_root


@dataclass(frozen=True)
class Segplug:
    """Calls the program in a folder, with preprocessed data and results below it."""

    folder: Path

    def __call__(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("nnUNet", "SEGPLUG"))}
        done = subprocess.run(
            [sys.executable, "-m", "segplug", *map(str, arguments)],
            cwd=self.folder,
            env=clean,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


def new_project(folder: Path, executor: str = "local", more: str = "", raw: Path | None = None) -> Segplug:
    """A folder with a segplug.toml, on the bundled sample unless another folder of raw data is named."""
    text = f'[paths]\nraw = "{raw or sample_root()}"\npreprocessed = "preprocessed"\nresults = "results"\n'
    text += f'[defaults]\nworkers = 2\nexecutor = "{executor}"\ndevice = "cpu"\n{more}'
    folder.mkdir(exist_ok=True)
    (folder / "segplug.toml").write_text(text)
    return Segplug(folder)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own `work` can be imported, by workers too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def make_project() -> Callable[..., Segplug]:
    """See `new_project`."""
    return new_project
