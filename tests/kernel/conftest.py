"""Plugins made on the spot, and fresh environments with real distributions that pip installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segplug import Component, hookimpl
from segplug.kernel import Kernel

DISTRIBUTIONS = Path(__file__).parent / "distributions"


def make_plugin(components: dict[str, list[Component[Any]]] | None = None, **hooks: Callable[..., Any]) -> object:
    """A plugin object with provider hooks for `components` (by kind) and other hooks as given."""
    plugin = SimpleNamespace()
    for kind, provided in (components or {}).items():

        def provide(provided: list[Component[Any]] = provided) -> Iterator[Component[Any]]:
            yield from provided

        # pluggy passes no argument to parameters with defaults
        setattr(plugin, f"segplug_{kind}", hookimpl(provide))
    for name, function in hooks.items():
        setattr(plugin, name, hookimpl(function) if not hasattr(function, "segplug_impl") else function)
    return plugin


@pytest.fixture
def plugin() -> Callable[..., object]:
    return make_plugin


@pytest.fixture
def kernel_with() -> Callable[..., Kernel]:
    """A kernel with the built-ins and the plugins given by name, each a dict of components by kind."""

    def build(pins: dict[str, str] | None = None, **plugins: dict[str, list[Component[Any]]]) -> Kernel:
        kernel = Kernel(pins=pins, discover=False)
        for name, components in plugins.items():
            kernel.register(make_plugin(components), name)
        return kernel

    return build


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees this one's packages, and what pip installed into it."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(
        self, *arguments: str | Path, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SEGPLUG_", "nnUNet_", "PYTHON"))}
        return subprocess.run(
            [self.python, *arguments],
            capture_output=True,
            text=True,
            cwd=cwd or self.folder,
            env={**kept, **variables},
            timeout=120,
        )

    def segplug(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line as the installed script does."""
        return self.run("-c", "from segplug.cli.main import main; main()", *arguments, cwd=cwd)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test distributions, built by pip as a stranger's would be."""
    folder = tmp_path_factory.mktemp("wheels")
    sources = tmp_path_factory.mktemp("sources")
    for source in sorted(DISTRIBUTIONS.iterdir()):  # built from copies, so that nothing is left in the tree
        _copy(source, sources / source.name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*build, "-w", folder, *sorted(sources.iterdir())], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def install(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """Make a fresh environment with the distributions named."""

    def make(*names: str) -> Environment:
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder, symlinks=True)
        environment = Environment(folder)
        own = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
        # the packages of the environment that runs the tests, editable ones too
        (own / "parent.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        if not names:
            return environment
        found = [next(wheels.glob(f"{name.replace('-', '_')}-*.whl")) for name in names]
        pip = [sys.executable, "-m", "pip", "--python", str(environment.python)]
        done = subprocess.run(
            [*pip, "install", "--quiet", "--no-deps", "--no-index", *found], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return environment

    return make


def _copy(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / file.relative_to(source)).write_bytes(file.read_bytes())
