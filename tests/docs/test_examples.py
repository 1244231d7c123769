"""Examples on the pages run, and answer what the pages show.

A page with `<!-- world: NAME -->` has examples; those after a line `<!-- run -->` are run, in the page's order and in
one folder, which `tests/docs/conftest.py` furnishes. In a `console` block lines that begin with `$ ` are commands:
`segplug` is called in this process, all else by bash. Lines that follow a command are what it prints, each in full and
in this order, as far as shown; `...` stands for anything. `pip install ./NAME` lays a plugin down where this page finds
it. In `python` blocks, which share their names, a last comment `# ` behind `print(...)` is what that prints. `json` and
`toml` blocks with a title are files that are written.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLE = re.compile(r'^<!-- run -->\n+^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


class Example(NamedTuple):
    language: str
    title: str
    text: str


def pages() -> list[Path]:
    return [
        page
        for page in sorted([*DOCS.glob("*.md"), *DOCS.glob("kinds/*.md")])
        if "<!-- run -->" in page.read_text(encoding="utf-8")
    ]


def examples(page: Path) -> list[Example]:
    return [Example(m[1], m[2] or "", m[3]) for m in EXAMPLE.finditer(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(DOCS)))
def test_examples_run(
    page: Path, furnish: Callable[[str, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page.read_text(encoding="utf-8")
    world = re.search(r"<!-- world: (\w+) -->", text)
    assert world is not None, "the page names no world"
    found = examples(page)
    assert len(found) == text.count("<!-- run -->")
    furnish(world[1], tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    before = set(sys.modules)
    names: dict[str, Any] = {}
    for example in found:
        if example.title:
            Path(example.title).write_text(example.text, encoding="utf-8")
        elif example.language == "console":
            for command, shown in commands(example.text):
                check(command, run(command), shown)
        else:
            assert example.language == "python"
            check(example.text, execute(example.text, names), printed(example.text))
    for module in set(sys.modules) - before:
        if module.startswith("segplug_") and not module.startswith("segplug_builtin"):
            del sys.modules[module]  # plugins of this page alone


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command, and the lines below it."""
    current, shown = "", list[str]()
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            if current:
                yield current, shown
            current, shown = line[2:].partition("  # ")[0], []
        else:
            shown.append(line)
    yield current, shown


def run(command: str) -> str:
    words = shlex.split(command)
    if words[:2] == ["pip", "install"]:
        return lay_down(Path(words[2]), Path("site-packages"))
    if words[0] != "segplug":
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout
    from segplug.cli.main import app

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as many cases as a page has folds are few
        done_here = CliRunner().invoke(app, words[1:], catch_exceptions=True)
    if done_here.exception is not None and not isinstance(done_here.exception, SystemExit):
        raise AssertionError(f"{command}: {done_here.output}") from done_here.exception
    assert done_here.exit_code == 0, f"{command}: {done_here.output}"
    return done_here.output


def lay_down(distribution: Path, site: Path) -> str:
    """What pip would leave of a distribution in pure Python; that pip itself does is tested for one of each kind."""
    project = tomllib.loads((distribution / "pyproject.toml").read_text())["project"]
    package = project["name"].replace("-", "_")
    shutil.copytree(distribution / package, site / package)
    metadata = site / f"{package}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    importlib.invalidate_caches()
    return ""


def execute(code: str, names: dict[str, Any]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, "page", "exec"), names)
    return out.getvalue()


def printed(code: str) -> list[str]:
    """What comments behind `print(...)` say."""
    return re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)


def check(what: str, output: str, shown: list[str]) -> None:
    """Every line shown is a line of the output, in this order."""
    lines = iter(output.splitlines())
    for line in filter(str.strip, shown):
        pattern = re.escape(line.strip()).replace(r"\.\.\.", ".*")
        assert any(re.fullmatch(pattern, each.strip()) for each in lines), f"{what}\n{line!r} is not in\n{output}"


def test_a_wrong_line_is_found() -> None:
    check("x", "one\ntwo 2 three\n", ["two ... three"])
    with pytest.raises(AssertionError, match="is not in"):
        check("x", "one\ntwo\n", ["two", "one"])
    assert list(commands("$ a \\\n  b\nout\n$ c\n")) == [("a    b", ["out"]), ("c", [])]
    assert printed("print(a)  # 3\nx = 1  # no\n") == ["3"]
