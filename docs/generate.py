"""Writes the pages that are made from the code: hooks.md from the hook specifications, cli.md from the help texts,
inventory.md from inventory.toml, values.md from segplug.model, and a page per kind of component, kinds/KIND.md, from
kinds.toml and the examples.

    python docs/generate.py

A test fails when a page is not what this makes of the code.
"""

from __future__ import annotations

import inspect
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from segplug import model
from segplug.cli.plugin_template import COMMAND, SINGULAR, Names, plugin_files
from segplug.kernel import KINDS, Kernel, Kind, hookspecs
from segplug.protocols import events
from segplug.testing.conformance import CHECKS

HERE = Path(__file__).resolve().parent
MADE = "<!-- made by docs/generate.py: change what it is made from -->"
WIDTH = 100


def signature_of(function: Callable[..., Any]) -> str:
    """A hook as its heading shows it."""
    shown = str(inspect.signature(function)).replace("'", "")
    return f"{function.__name__}{shown}"


def hooks() -> Iterator[tuple[str, Callable[..., Any], Kind | None]]:
    """Every hook: its name, its specification, and the kind of component if it is a provider."""
    for kind in KINDS.values():
        yield kind.hook, getattr(hookspecs.Providers, kind.hook), kind
    for module in (hookspecs, events):
        for name, value in vars(module).items():
            if name.startswith("segplug_"):
                yield name, value, None


def hook_reference() -> str:
    """hooks.md."""
    parts = [MADE, "# Hook reference", inspect.getdoc(hookspecs) or "", HOW]
    sections = (("Provider hooks", PROVIDERS), ("Choice hooks", CHOICES), ("Event hooks", EVENTS))
    found = list(hooks())
    for title, text in sections:
        parts += [f"## {title}", text]
        for name, function, kind in found:
            section = PROVIDERS if kind else CHOICES if name.startswith("segplug_choose_") else EVENTS
            if section is text:
                parts += [
                    f"### `{signature_of(function)}`",
                    inspect.getdoc(function) or "",
                    *_contract(kind),
                    *_example(name),
                ]
    return "\n\n".join(parts) + "\n"


def _contract(kind: Kind | None) -> list[str]:
    if kind is None:
        return []
    protocol = kind.load_protocol()
    module = sys.modules[protocol.__module__]
    classes = [
        c for n, c in vars(module).items() if inspect.isclass(c) and c.__module__ == module.__name__ and n[0] != "_"
    ]
    code = "\n\n\n".join(inspect.getsource(c).rstrip() for c in classes)
    return [STYLES[kind.style.value].format(kind=kind), f"```python\n{code}\n```"]


def _example(name: str) -> list[str]:
    file = HERE.parent / "core" / "segplug" / "testing" / "examples" / f"example_{name.removeprefix('segplug_')}.py"
    code = file.read_text(encoding="utf-8").rstrip()
    return [f'```python title="{file.relative_to(HERE.parent)}"\n{code}\n```']


def command_reference() -> str:
    """cli.md."""
    from typer.main import get_command

    from segplug.cli import main

    parts = [MADE, "# Commands", COMMANDS]

    def describe(command: Any, name: str, parent: Any, level: int) -> None:
        context = command.context_class(
            command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH
        )
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.extend([f"{'#' * level} {context.command_path}", f"```text\n{text}\n```"])
        if hasattr(command, "list_commands"):
            for child in command.list_commands(context):
                describe(command.get_command(context, child), child, context, level + 1)

    with patch.object(main, "plugin_commands", dict):  # what others installed here is not ours to document
        describe(get_command(main.app), "segplug", None, 2)
    return "\n\n".join(parts) + "\n"


def inventory_page() -> str:
    """inventory.md."""
    from segplug_builtin.trainers.nnunet_classes import in_words

    sections = tomllib.loads((HERE / "inventory.toml").read_text(encoding="utf-8"))["section"]
    parts = [MADE, "# Inventory", INVENTORY, "## Commands and flags", INVENTORY_COMMANDS]
    for section in sections:
        parts.append(f"{'###' if section['title'].startswith('nnUNetv2_') else '##'} {section['title']}")
        parts += [section["intro"]] if "intro" in section else []
        lines = ["| nnU-Net | segplug | test |", "|---|---|---|"]
        for names, counterpart, tests in section["rows"]:
            ours = f"`{in_words(names)}`" if counterpart == "=" else counterpart
            shown = ", ".join(f"`{name}`" for name in names.split())
            lines.append(f"| {shown} | {ours} | {', '.join(f'`{test}`' for test in tests.split())} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def values_page() -> str:
    """values.md."""
    parts = [MADE, "# Values", VALUES]
    for name, value in vars(model).items():
        if inspect.isclass(value):
            parts += [f"## {name}", f"```python\n{inspect.getsource(value).rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def kind_pages() -> dict[str, Callable[[], str]]:
    """kinds/KIND.md, by their names."""
    described = tomllib.loads((HERE / "kinds.toml").read_text(encoding="utf-8"))
    return {f"kinds/{name}.md": partial(_kind_page, name, content) for name, content in described.items()}


def _kind_page(name: str, content: dict[str, str]) -> str:
    kind, names = KINDS.get(name), Names.of(content["plugin"])
    singular = SINGULAR.get(name, COMMAND)
    distribution = names.distribution
    look = f"segplug plugins check {names.component}" if kind else f"segplug {names.component} --help"
    try_it = [f"segplug plugins new {content['plugin']} --kind {singular}", f"pip install ./{distribution}", look]
    parts = [
        MADE,
        f"<!-- world: {content['world']} -->",
        f"# {content['title']}",
        content["about"].strip(),
        "## A whole one",
        "`segplug plugins new` writes this package. It works as it is; change what it does.",
        "<!-- run -->",
        "\n".join(["```console", *(f"$ {line}" for line in try_it), "```"]),
    ]
    for path, text in plugin_files(names, name if kind else COMMAND).items():
        language = {".py": "python", ".toml": "toml"}.get(Path(path).suffix)
        if language:
            parts.append(f'```{language} title="{distribution}/{path}"\n{text.rstrip()}\n```')
    parts += ["## Use it", content["use"].strip()]
    if kind:
        parts += ["## What it has to be", CONTRACT.format(kind=kind), *_contract(kind)]
        checked = "\n".join(f"- {check.statement}" for check in CHECKS[name])
        parts += ["The conformance suite, which `segplug plugins check` runs, asks of it that", checked]
        parts += ["## Built in", *_built_in(name)]
    return "\n\n".join(parts) + "\n"


def _built_in(kind: str) -> list[str]:
    rows = ["| name | what it is | other names |", "|---|---|---|"]
    for provided in Kernel(discover=False).registry.all(kind):
        component = provided.component
        others = ", ".join(f"`{alias}`" for alias in component.aliases)
        rows.append(f"| `{component.name}` | {component.summary} | {others} |")
    return ["\n".join(rows)]


HOW = """A hook is a function of this name, marked with `segplug.hookimpl`, in the module that the entry point names:

```toml
[project.entry-points.segplug]
my_plugin = "my_package"
```

It names only the arguments that it needs. [Your first loss](first-loss.md) shows a whole package,
[Plugins](plugins.md) which component a name stands for. In the examples below, components and hook stand in one file,
and `__name__` stands for its module."""

PROVIDERS = """A provider hook yields components of one kind. Each is described by a protocol in `segplug.protocols`: a
function or an object of that shape is all it takes, there is nothing to subclass. Every name may be given in a plan or
with `--set`, with options as JSON values; `--splitter`, `--metric` and `--postprocessor` take them behind the name, as
`NAME,option=VALUE,...`."""

CONTRACT = """The hook is `{kind.hook}`, see the [hook reference](../hooks.md#provider-hooks)."""

CHOICES = """A choice hook answers with a component's name, or with None to leave the answer to the next. The plugin
that was registered last is asked first, the built-in answers come last. They are asked only where nobody named a
component."""

EVENTS = """An event hook is told what happened. What it returns is ignored, and if it raises, the run goes on with a
warning."""

STYLES = {
    "function": "The implementation is the component: it is called as `segplug.protocols.{kind.protocol}` says, with "
    "its options as further keywords.",
    "object": "The implementation is called with its options, and with what it asks for by name; it returns an object "
    "that `segplug.protocols.{kind.protocol}` describes.",
}

COMMANDS = """Every command with its help, as the program prints it. Each command is a thin shell over a Python
function. Exit codes: 0 fine, 1 failed, 2 wrong usage. Tables (`plugins list`, `dataset verify`) are drawn in a
terminal; elsewhere a row is one line with tabs, and `--format json` is for programs."""

INVENTORY = """Everything that nnunetv2 2.8.1 offers: commands and flags, classes and functions, options, keys of its
files, environment variables. Beside each stand its counterpart in segplug and the test, below `tests/`, that shows it.
A test fails when a row has no counterpart or no test, when a named test does not exist, or when nnunetv2 has something
that is in no row. [Coming from nnU-Net](coming-from-nnunet.md) is the page to read; this one is to look things up in.

"None" says that segplug does without, and why; the test then shows what happens instead. Left out are helpers of the
package (paths, JSON, printing), nnU-Net's own tests, and its authors' scripts for their cluster."""

INVENTORY_COMMANDS = """In the middle column stand commands and options of segplug; [Commands](cli.md) has them all. An
option with several values is repeated: `-f 0 -f 1`. Every command has `--help`. Progress is drawn in a terminal and
logged in plain lines elsewhere; errors are told in one message, with a traceback after `segplug --debug`."""

VALUES = """What components are given and what they return: frozen dataclasses of `segplug.model`. They are changed by
`dataclasses.replace`, which makes another; mappings in them are read, never written. Axes are (z, y, x), lengths are in
mm."""

PAGES: dict[str, Callable[[], str]] = {
    "hooks.md": hook_reference,
    "cli.md": command_reference,
    "inventory.md": inventory_page,
    "values.md": values_page,
    **kind_pages(),
}


def main() -> None:
    for name, make in PAGES.items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_text(make(), encoding="utf-8")
        sys.stdout.write(f"wrote docs/{name}\n")


if __name__ == "__main__":
    main()
