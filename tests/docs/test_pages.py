"""What the pages show is so: blocks that quote files, the example package, and what the program answers."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FOCAL = DOCS / "examples" / "segplug-focal"
FILES = ("docs/examples/", "core/segplug/testing/examples/")
"""Where the files are whose text stands on the pages."""
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    return [*sorted(page for page in DOCS.rglob("*.md") if "examples" not in page.parts), ROOT / "README.md"]


def blocks() -> Iterator[tuple[str, str, str, str]]:
    """Page, language, title and content of every fenced block."""
    for page in pages():
        for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
            yield page.name, match[1], match[2] or "", match[3]


def test_blocks_that_name_a_file_are_that_file() -> None:
    named = [(page, title, text) for page, _, title, text in blocks() if title.startswith(FILES)]
    assert len(named) > 20
    for page, title, text in named:
        assert text.rstrip() == (ROOT / title).read_text(encoding="utf-8").rstrip(), f"{page}: {title}"


def test_python_and_toml_blocks_are_valid() -> None:
    for page, language, title, text in blocks():
        if language == "toml":
            tomllib.loads(text)
        elif language == "python" and not title.startswith(FILES) and page != "hooks.md":
            compile(text, page, "exec")


def commands_shown() -> list[tuple[str, str]]:
    found = []
    for page, language, _, text in blocks():
        if language == "console":
            lines = text.replace("\\\n", " ").splitlines()
            found += [
                (page, line.removeprefix("$ ").strip())
                for line in lines
                if line.removeprefix("$ ").startswith("segplug ") and "segplug count" not in line  # a plugin's
            ]
    return found


@pytest.mark.parametrize(("page", "line"), commands_shown())
def test_options_of_commands_shown_exist(page: str, line: str) -> None:
    from segplug.cli.main import app

    words = line.partition("#")[0].split()[1:]
    command = get_command(app)
    while words and hasattr(command, "list_commands") and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.list_commands(None), f"{page}: {line}"  # type: ignore[arg-type]
        command = command.get_command(None, name)  # type: ignore[arg-type]
    known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
    for word in words:
        if re.match(r"--?[a-z]", word):
            assert word.partition("=")[0] in known | {"--help", "-h"}, f"{page}: {line}"


def test_first_loss_in_an_environment(tmp_path: Path) -> None:
    """Install the package as pip does, run its own tests, and ask segplug for it."""
    source, target = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(FOCAL, source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(target), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        start = f"import sys; sys.path.insert(0, {str(target)!r}); "
        return subprocess.run(
            [sys.executable, "-c", start + arguments[0], *arguments[1:]], capture_output=True, text=True, cwd=tmp_path
        )

    tests = "import pytest; raise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider', 'source/tests']))"
    done = run(tests)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed, 1 skipped" in done.stdout

    listed = run("from segplug.cli.main import main; main()", "plugins", "list", "--kind", "losses")
    assert (
        "losses\tdice_focal\tfocal:dice_focal\tsegplug-focal\t0.1.0\tin force\tsoft Dice + focal loss" in listed.stdout
    )

    wrong = run(
        "from segplug import open_project, ComponentRef\n"
        "open_project().kernel.registry.build('losses', ComponentRef('dice_focal', {'gama': 1.5}))"
    )
    message = wrong.stderr.strip().splitlines()[-1].partition(": ")[2]
    page = " ".join((DOCS / "first-loss.md").read_text(encoding="utf-8").split())
    assert f"error: {message}" in page


def test_the_public_modules_of_the_pages_exist() -> None:
    for module in ("segplug", "segplug.protocols", "segplug.model", "segplug.errors", "segplug.testing"):
        importlib.import_module(module)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_pages_outside_docs_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'src="([^"]+)"', text):
        if "://" not in target:
            assert (ROOT / target).exists(), f"{page}: {target}"
