"""Every check, each in an environment of its own with the versions of constraints.txt.

`pip install nox && nox -s tests` is all a machine with Python and pip needs. `nox -l` lists the sessions; what stands
after `--` is passed on.
"""

from __future__ import annotations

import os
import runpy
import shutil
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests", "docs"]

ROOT = Path(__file__).parent
PINNED = ("-c", str(ROOT / "constraints.txt"))
PEER = ("nnunetv2==2.8.1", "torch==2.13.0")
"""The nnU-Net that segplug is compared with. It gets an environment of its own."""

ON_ALL_CORES = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")
"""For pytest: a file's tests stay together, for they share fixtures; each process takes up to 2 GB."""

BENCH_PARTS = ("report", "hippocampus", "side_by_side", "table", "models", "training_data")
"""Files of bench/ that benchmarks share."""

BENCH_TABLE = runpy.run_path(str(ROOT / "bench" / "table.py"))["FAMILIES"]
"""Benchmarks of the table of docs/benchmarks.md: what runs unless others are named."""


@nox.session
def quickstart(session: nox.Session) -> None:
    """Train, predict and evaluate on the bundled sample: nox -s quickstart -- --out DIR."""
    session.install(*PINNED, ".")
    session.run("segplug", "quickstart", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, on all cores: nox -s tests -- -k registry."""
    session.install(*PINNED, "-e", ".[test]")
    session.run("pytest", *ON_ALL_CORES, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting and the import rules."""
    session.install(*PINNED, "ruff", "import-linter")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": "core:plugins"})


@nox.session
def types(session: nox.Session) -> None:
    """Check all types strictly, in both packages; the examples of the hook reference are in one of them."""
    session.install(*PINNED, "-e", ".", "mypy")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages into site/; a broken link or reference fails. Whether they are true is for the tests."""
    session.install(*PINNED, "mkdocs", "mkdocs-material")
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it in a clean environment and use it from another folder."""
    _install_wheel(session)
    with session.chdir(session.create_tmp()):
        session.run("segplug", "--version")
        session.run("segplug", "--help", silent=True)
        session.run("segplug", "plugins", "list")


def _install_wheel(session: nox.Session, *extras: str) -> None:
    """An ordinary segplug, as from a package index."""
    folder = Path(session.create_tmp()).resolve() / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    session.run("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), ".")
    session.run("pip", "uninstall", "--quiet", "--yes", "segplug")
    built = next(folder.glob("segplug-*.whl"))
    session.install(*PINNED, f"{built}[{','.join(extras)}]" if extras else str(built))


@nox.session
def parity(session: nox.Session) -> None:
    """Compare with nnU-Net itself, which is installed in an environment of its own."""
    session.install(*PINNED, "-e", ".[test]")
    variables = {"SEGPLUG_PEER": _install_peer(session)}
    if not session.posargs:
        variables["SEGPLUG_PARITY_TABLE"] = str(ROOT / "docs" / "parity.md")
    session.run("pytest", "-m", "parity", *session.posargs, env=variables)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks of the table, or those named: nox -s bench -- resampling. Results go to bench-results/.

    Options are passed on: nox -s bench -- resampling --repetitions 3 (--quick shows that all of them run).
    """
    session.install(*PINNED, "-e", ".[test]")
    known = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if path.stem not in BENCH_PARTS)
    first_option = next((i for i, part in enumerate(session.posargs) if part.startswith("-")), len(session.posargs))
    wanted, options = session.posargs[:first_option] or list(BENCH_TABLE), session.posargs[first_option:]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        session.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}")
    variables = {"SEGPLUG_PEER": _install_peer(session)}
    missed = []
    for name in wanted:  # all of them, though an aim is missed
        try:
            session.run("python", f"bench/{name}.py", *options, env=variables)
        except CommandFailed:
            missed.append(name)
    if missed:
        session.error(f"aims missed, or failed: {', '.join(missed)}")


def _install_peer(session: nox.Session) -> str:
    """The Python of an environment with nnunetv2, made where it is missing."""
    peer = Path(session.virtualenv.location).resolve().with_name("peer")
    python = str(peer / "bin" / "python")
    if not Path(python).exists():
        session.run("python", "-m", "venv", str(peer))
    session.run(python, "-m", "pip", "install", "--quiet", *PEER, external=True)
    return python


@nox.session
def contrib(session: nox.Session) -> None:
    """Test the plugin distributions of contrib/, or those named: nox -s contrib -- segplug-zarr. Then all together.

    Each is installed beside an ordinary segplug, and alone: no plugin leans on another.
    """
    packages = {path.parent.name: path.parent for path in sorted(ROOT.glob("contrib/*/pyproject.toml"))}
    wanted = session.posargs or list(packages)
    unknown = [name for name in wanted if name not in packages]
    if unknown:
        session.error(f"no distribution {', '.join(unknown)}; there are: {', '.join(packages)}")
    _install_wheel(session, "test")
    session.run("pip", "uninstall", "--quiet", "--yes", *packages)
    pinned = ("-c", _contrib_pins(session))
    variables = {"SEGPLUG_SHARED": os.environ.get("SEGPLUG_SHARED", str(ROOT.parent / "shared"))}
    failed = []
    for name in wanted:  # all of them, though one fails
        session.install(*pinned, f"{packages[name]}[test]")
        with session.chdir(packages[name]):
            try:
                session.run("pytest", env=variables)
            except CommandFailed:
                failed.append(name)
        session.run("pip", "uninstall", "--quiet", "--yes", name)
    session.install("--no-deps", *(str(packages[name]) for name in wanted))
    with session.chdir(session.create_tmp()):
        session.run("segplug", "plugins", "list")
        session.run("segplug", "plugins", "check")
    if failed:
        session.error(f"failed: {', '.join(failed)}")


def _contrib_pins(session: nox.Session) -> str:
    """All pins in one file; those of contrib/ in place of segplug's where both name a library."""
    lines = [
        line for folder in ("contrib", ".") for line in (ROOT / folder / "constraints.txt").read_text().splitlines()
    ]
    pins: dict[str, str] = {}
    for line in lines:
        name = line.partition("==")[0].lower().replace("_", "-")
        if line and not line.startswith("#"):
            pins.setdefault(name, line)
    file = Path(session.create_tmp()).resolve() / "constraints.txt"
    file.write_text("\n".join(pins.values()) + "\n")
    return str(file)
