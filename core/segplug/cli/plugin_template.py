"""`segplug plugins new`: a distribution with one component, made from the hook reference's example of its kind."""

from __future__ import annotations

import ast
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from segplug import __version__
from segplug.cli.main import COMMANDS
from segplug.errors import UsageError
from segplug.kernel import KINDS, Kernel
from segplug.kernel.component import PROJECT
from segplug.kernel.plugins import BUILTIN, BUILTIN_MODULES
from segplug.runtime.files import PARTIAL

EXAMPLES = Path(__file__).parents[1] / "testing" / "examples"
"""The examples of the hook reference, one file per hook: each is whole and passes the conformance suite of its kind."""

LINE = 120
"""Characters that a line may have."""

COMMAND = "command"
PREFIX = "segplug-"
SINGULAR = {name: re.sub("(?<=ss)es$|s$", "", name) for name in KINDS}
_COMPONENT = re.compile(r'Component\("[^"]+", f"\{__name__\}:(?P<attribute>\w+)"')
TEST_OPTIONS = {
    "readers": ', ending=".npy"',
    "writers": ', ending=".npy"',
    "architectures": ", patch_size=(16, 16, 16)",
}
"""What the conformance suite has to know of the examples."""
README_NOTES = {
    "readers": """Training's validation and prediction write label maps: they need a writer of the reader's name too
(hook `segplug_writers`; `segplug plugins new NAME --kind writer` shows one), or an answer to the hook
`segplug_choose_writer`. Without either, `segplug train` refuses to begin.
""",
}
"""What somebody has to know who makes more of the example."""


@dataclass(frozen=True)
class Names:
    """What things are called in a new plugin.

    Args:
        distribution: `segplug-focal-two`.
        package: `segplug_focal_two`.
        component: `focal_two`.
    """

    distribution: str
    package: str
    component: str

    @classmethod
    def of(cls, text: str) -> Names:
        """Names from what the user wrote, with or without the prefix.

        Raises:
            UsageError: a package cannot be called so.
        """
        stem = text.removeprefix(PREFIX)
        if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", stem):
            raise UsageError(
                f"plugin name {text!r}: expected a small letter, then small letters, digits and single hyphens, as in "
                f"{PREFIX}focal"
            )
        stem = stem.replace("_", "-")
        package = f"{PREFIX}{stem}".replace("-", "_")
        return cls(f"{PREFIX}{stem}", package, stem.replace("-", "_"))


def write_plugin(name: str, kind: str, folder: Path) -> list[str]:
    """Write the distribution into a new folder of its name; returns what to do next, line by line.

    Args:
        name: of the distribution, with or without `segplug-`.
        kind: in the plural or singular, or `command`.

    Raises:
        UsageError: the name or kind is none, the name is one of segplug's own, or the folder exists.
    """
    names, plural = Names.of(name), _kind(kind)
    _refuse_taken(names, plural)
    target = folder / names.distribution
    if target.exists():
        raise UsageError(f"{target} exists already; expected a new folder. Choose another name, or remove it")
    files = plugin_files(names, plural)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder) as partial:
        for path, text in files.items():
            file = Path(partial) / target.name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        (Path(partial) / target.name).rename(target)
    look = f"segplug {names.component} --help" if plural == COMMAND else f"segplug plugins check {names.component}"
    return [f"{target} written", f"pip install -e {target}", f"pytest {target}", look]


def plugin_files(names: Names, kind: str) -> dict[str, str]:
    """The distribution's files by their paths within it.

    Args:
        kind: a key of `KINDS`, or `command`.
    """
    return _command(names) if kind == COMMAND else _component(names, kind)


def _kind(text: str) -> str:
    for plural, singular in {**SINGULAR, COMMAND: COMMAND}.items():
        if text in (plural, singular):
            return plural
    raise UsageError(f"no kind of component {text!r}; there are: {', '.join([*SINGULAR.values(), COMMAND])}")


def _refuse_taken(names: Names, kind: str) -> None:
    """Refuse what would overwrite a part of segplug, stop runs that name nothing, or have no effect.

    Raises:
        UsageError: module, plugin, component or command of that name are segplug's.
    """
    another = "Choose another name"
    if names.package in BUILTIN_MODULES or names.component in (BUILTIN, PROJECT):
        what = f"its module {names.package} and its plugin {names.component!r} would stand in the way of segplug's own"
        raise UsageError(f"plugin name {names.distribution!r}: {what}. {another}")
    if kind == COMMAND:
        if names.component in COMMANDS:
            raise UsageError(f"command {names.component!r} is segplug's own, which is never replaced. {another}")
        return
    for provided in Kernel(discover=False).registry.all(kind):
        if provided.answers_to(names.component):
            raise UsageError(
                f"{names.component!r} is a built-in component among the {kind}; a second one is an error in every run "
                f"that uses the name. {another}. To stand in for the built-in one, change the component afterwards by "
                f'hand: Component("{names.component}", ..., replaces=True)'
            )


def _component(names: Names, kind: str) -> dict[str, str]:
    """Files of a distribution with the example of a kind, under its own name."""
    implementation, hook = _parted((EXAMPLES / f"example_{kind}.py").read_text(encoding="utf-8"))
    module = SINGULAR[kind]
    hook = _COMPONENT.sub(rf'Component("{names.component}", "{names.package}.{module}:\g<attribute>"', hook)
    hook = "\n".join(map(_fitting, hook.splitlines()))
    init = f'''"""Tells segplug what {names.distribution} provides. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator

from segplug import Component, hookimpl
from segplug.protocols import {KINDS[kind].protocol}


{hook}
'''
    options = TEST_OPTIONS.get(kind, "")
    test = f'''"""What every one of the {kind} has to do. What this one does besides is yours to test."""

import pytest

from segplug.testing import BoundCheck, conformance


@pytest.mark.parametrize("check", conformance("{kind}", "{names.component}"{options}), ids=str)
def test_conformance(check: BoundCheck) -> None:
    check()
'''
    about = f"One of segplug's {kind}: {KINDS[kind].summary}."
    return {
        "pyproject.toml": _pyproject(names, f'[project.entry-points.segplug]\n{names.component} = "{names.package}"'),
        "README.md": _readme(names, about, f"segplug plugins check {names.component}", README_NOTES.get(kind, "")),
        f"{names.package}/__init__.py": init,
        f"{names.package}/{module}.py": implementation,
        f"{names.package}/py.typed": "",
        f"tests/test_{module}.py": test,
    }


def _fitting(line: str) -> str:
    """A call on one line as formatters break it, if it is long."""
    before, _, arguments = line.removesuffix(")").partition("(")
    if len(line) <= LINE or not arguments:
        return line
    inner = f"        {arguments}"
    if len(inner) > LINE:
        inner = "\n".join(f"        {part}," for part in re.findall(r'"[^"]*"', arguments))
    return f"{before}(\n{inner}\n    )"


def _parted(source: str) -> tuple[str, str]:
    """An example's implementation, without the imports that the hook alone needed, and its hook."""
    lines, tree = source.splitlines(), ast.parse(source)
    hook = next(each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name.startswith("segplug_"))
    text = "\n".join(lines[hook.decorator_list[0].lineno - 1 : hook.end_lineno])
    rest = [each for each in tree.body if each is not hook]
    used = {node.id for each in rest for node in ast.walk(each) if isinstance(node, ast.Name)}
    lines[hook.decorator_list[0].lineno - 1 :] = []
    for node in reversed(rest):
        if isinstance(node, ast.ImportFrom) and node.module in ("segplug", "segplug.protocols", "collections.abc"):
            kept = ", ".join(alias.name for alias in node.names if alias.name in used)
            lines[node.lineno - 1 : node.end_lineno] = [f"from {node.module} import {kept}"] if kept else []
    tidy = re.sub(r"\n{3,}(?=from |import |if TYPE_CHECKING)", "\n\n", "\n".join(lines).rstrip() + "\n")
    return re.sub(r"\n{4,}", "\n\n\n", tidy), text


def _command(names: Names) -> dict[str, str]:
    """Files of a distribution with the example of a command."""
    test = f'''"""The command, by itself."""

from pathlib import Path

from typer.testing import CliRunner

from {names.package}.command import app


def test_it_counts(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz", "notes"):
        (tmp_path / name).touch()
    done = CliRunner().invoke(app, [str(tmp_path)])
    assert done.exit_code == 0
    assert done.output.splitlines() == ["1 without ending", "2 .nii.gz"]
'''
    entry = f'[project.entry-points."segplug.commands"]\n{names.component} = "{names.package}.command:app"'
    return {
        "pyproject.toml": _pyproject(names, entry),
        "README.md": _readme(names, "A command of segplug.", f"segplug {names.component} --help"),
        f"{names.package}/__init__.py": f'"""The command of {names.distribution}."""\n',
        f"{names.package}/command.py": (EXAMPLES / "command.py").read_text(encoding="utf-8"),
        f"{names.package}/py.typed": "",
        "tests/test_command.py": test,
    }


def _pyproject(names: Names, entry: str) -> str:
    return f'''[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{names.distribution}"
version = "0.1.0"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["segplug>={__version__}"]

[project.optional-dependencies]
test = ["pytest"]

{entry}
'''


def _readme(names: Names, about: str, look: str, note: str = "") -> str:
    text = f"""# {names.distribution}

{about}

```console
$ pip install -e '.[test]'
$ pytest
$ {look}
```
"""
    return f"{text}\n{note}" if note else text
