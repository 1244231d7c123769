"""The kernel stays small, and every hook is documented, tested and shown."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from segplug.kernel import KINDS, Kernel
from segplug.kernel.hookspecs import Providers

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
KERNEL_LINES = 800


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hook_names() -> list[str]:
    """As pluggy knows them, so that none is missed by how its specification is written."""
    hook = Kernel(discover=False)._host.hook
    return sorted(name for name in vars(hook) if name.startswith("segplug_"))


def spec_of(name: str) -> inspect.Signature:
    return inspect.signature(getattr(Kernel(discover=False)._host.hook, name).spec.function)


def test_the_kernel_is_small() -> None:
    files = sorted((ROOT / "core" / "segplug" / "kernel").rglob("*.py"))
    lines = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert len(lines) > 5
    assert sum(lines.values()) <= KERNEL_LINES, lines


def test_every_kind_has_its_hook() -> None:
    assert {kind.hook for kind in KINDS.values()} == {n for n in vars(Providers) if n.startswith("segplug_")}
    assert {kind.hook for kind in KINDS.values()} < set(hook_names())


@pytest.mark.parametrize("name", hook_names())
def test_hook_has_a_heading_with_its_signature(name: str) -> None:
    signature = str(spec_of(name)).replace("'", "")
    headings = [line for line in (DOCS / "hooks.md").read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert f"### `{name}{signature}`" in headings


@pytest.mark.parametrize("name", hook_names())
def test_hook_has_a_docstring(name: str) -> None:
    assert getattr(Kernel(discover=False)._host.hook, name).spec.function.__doc__


@pytest.mark.parametrize("name", hook_names())
def test_hook_has_a_test(name: str) -> None:
    tests = (ROOT / "tests" / "kernel" / "test_hooks.py").read_text(encoding="utf-8")
    assert re.search(rf"^def test_hook_{name.removeprefix('segplug_')}\(", tests, re.MULTILINE)


@pytest.mark.parametrize("name", hook_names())
def test_hook_has_an_example_in_the_reference(name: str) -> None:
    example = ROOT / "core" / "segplug" / "testing" / "examples" / f"example_{name.removeprefix('segplug_')}.py"
    code = example.read_text(encoding="utf-8")
    assert f"@hookimpl\ndef {name}(" in code
    assert code.rstrip() in (DOCS / "hooks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["hooks.md", "cli.md", "inventory.md"])
def test_generated_pages_are_up_to_date(generate: ModuleType, page: str) -> None:
    made = generate.PAGES[page]()
    assert (DOCS / page).read_text(encoding="utf-8") == made, "run: python docs/generate.py"
