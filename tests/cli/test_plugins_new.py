"""`segplug plugins new` and `plugins check`: what is written installs, and its tests pass at once, for every kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segplug.cli.plugin_template import SINGULAR, write_plugin
from segplug.errors import UsageError
from segplug.kernel import KINDS

PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    for kind in [*SINGULAR.values(), "command"]:
        write_plugin(f"my-{kind}", kind, folder)
    return folder


@pytest.fixture(scope="module")
def installed(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    done = subprocess.run([*PIP, "--target", target, *sorted(written.iterdir())], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def run(installed: Path, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=environment)


def test_every_kind_has_a_singular() -> None:
    assert set(SINGULAR) == set(KINDS)
    assert SINGULAR["losses"] == "loss"
    assert SINGULAR["metrics"] == "metric"
    assert SINGULAR["stores"] == "store"


@pytest.mark.slow
def test_what_is_written_installs_and_its_tests_pass(written: Path, installed: Path) -> None:
    done = run(
        installed,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        ".",
        cwd=written,
    )
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout
    assert " passed" in done.stdout


def test_a_reader_is_told_to_need_a_writer(written: Path) -> None:
    assert "segplug_choose_writer" in (written / "segplug-my-reader/README.md").read_text()
    assert "segplug_choose_writer" not in (written / "segplug-my-writer/README.md").read_text()


def test_what_is_written_is_clean(written: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed beside the tests (nox -s lint checks the style)")
    options = ["check", "--isolated", "--no-cache", "--select", "F,E,W,UP,B", "--ignore", "E501"]
    done = subprocess.run([ruff, *options, written], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_plugins_check_tells_what_holds_and_what_does_not(installed: Path, tmp_path: Path) -> None:
    start = "from segplug.cli.main import main; main()"
    done = run(installed, "-c", start, "plugins", "check", "my_loss", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    states = [row["state"] for row in json.loads(done.stdout)]
    assert states.count("passed") == len(states) - 1
    assert states.count("skipped") == 1

    refused = run(installed, "-c", start, "plugins", "check", "my_loss", "--patch-size", "32", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--patch-size 32: expected two or three numbers" in refused.stderr
    refused = run(installed, "-c", start, "plugins", "check", "my_loss", "--ending", "npy", cwd=tmp_path)
    assert "--ending npy: expected an ending with its dot" in refused.stderr

    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "segplug_wrong.py").write_text(
        "from segplug import Component, hookimpl\n\n\nclass Zero:\n"
        "    def __call__(self, logits, target):\n        return logits.sum() * 0\n\n\n"
        "@hookimpl\ndef segplug_losses():\n    yield Component('zero', 'segplug_wrong:Zero', 'always 0')\n"
    )
    facts = wrong / "segplug_wrong-0.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: segplug-wrong\nVersion: 0.1\n")
    (facts / "entry_points.txt").write_text("[segplug]\nwrong = segplug_wrong\n")
    done = run(wrong, "-c", start, "plugins", "check", cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "right 0.0000, undecided 0.0000, wrong 0.0000" in done.stdout
    assert "failed" in done.stderr.splitlines()[-1]


def test_a_plugin_that_cannot_be_imported_fails_the_check(tmp_path: Path) -> None:
    facts = tmp_path / "segplug_gone-0.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: segplug-gone\nVersion: 0.1\n")
    (facts / "entry_points.txt").write_text("[segplug]\ngone = segplug_gone\n")
    done = run(tmp_path, "-c", "from segplug.cli.main import main; main()", "plugins", "check", cwd=tmp_path)
    assert done.returncode == 1
    assert "No module named 'segplug_gone'" in done.stdout


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        ("my plugin", "loss", "expected a small letter, then small letters, digits and single hyphens"),
        ("segplug-", "loss", "expected a small letter, then"),
        ("3d-net", "architecture", "expected a small letter, then"),
        ("builtin", "metric", "its module segplug_builtin .* stand in the way of segplug's own. Choose another name"),
        ("segplug", "command", "stand in the way"),
        ("dice-ce", "loss", r"'dice_ce' is a built-in component among the losses.*Choose another name.*replaces=True"),
        ("train", "command", "'train' is segplug's own, which is never replaced. Choose another name"),
        ("focal", "lossy", "there are: reader, writer"),
    ],
)
def test_wrong_names_are_refused(tmp_path: Path, name: str, kind: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        write_plugin(name, kind, tmp_path)
    assert not list(tmp_path.iterdir())


def test_names_of_other_kinds_are_free(tmp_path: Path) -> None:
    write_plugin("train", "loss", tmp_path)
    write_plugin("dice-ce", "metric", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"segplug-train", "segplug-dice-ce"}


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    write_plugin("focal", "loss", tmp_path)
    (tmp_path / "segplug-focal" / "README.md").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        write_plugin("segplug-focal", "losses", tmp_path)
    assert (tmp_path / "segplug-focal" / "README.md").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["segplug-focal"]
