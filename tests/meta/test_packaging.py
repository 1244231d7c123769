"""What a clone and a wheel promise."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer

from segplug.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = {
    line.partition("==")[0]: line.partition("==")[2]
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


NEEDED = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]


@pytest.mark.parametrize("requirement", NEEDED)
def test_what_is_needed_is_pinned(requirement: str) -> None:
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None
    assert canonical(match[0]) in PINNED


def test_pins_are_exact_and_of_no_one_platform() -> None:
    for name, version in PINNED.items():
        assert re.fullmatch(r"[\w.]+", version), f"{name}=={version}"
    assert PINNED["torch"] == "2.13.0"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_help_exists(name: str) -> None:
    assert isinstance(import_module(f"segplug.cli.{name}").app, typer.Typer)


@pytest.mark.parametrize("command", ["pip install nox && nox -s quickstart", "pip install nox && nox -s tests"])
def test_readme_has_the_two_commands(command: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert command in readme
    session = command.rpartition(" ")[2]
    assert f"def {session}(session: nox.Session)" in (ROOT / "noxfile.py").read_text(encoding="utf-8")


def test_ci_runs_the_tests_of_the_readme() -> None:
    assert "nox -s tests" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_no_committed_text_names_a_package_host_or_a_folder_of_one_machine() -> None:
    # put together, so that this file does not name them
    banned = [
        "files.python" + "hosted",
        "pypi" + ".org",
        "/".join(["", "work", ""]),
        "--extra-index" + "-url",
        "index" + "-url",
    ]
    files = [
        ROOT / name
        for name in ("README.md", "noxfile.py", "pyproject.toml", "constraints.txt", ".ci/run", "mkdocs.yml")
    ]
    for folder, pattern in (
        ("core", "*.py"),
        ("plugins", "*.py"),
        ("tests", "*.py"),
        ("docs", "*.md"),
        ("bench", "*.py"),
    ):
        files += (ROOT / folder).rglob(pattern)
    named = [str(f) for f in files if f.exists() and any(b in f.read_text(encoding="utf-8") for b in banned)]
    assert named == []
