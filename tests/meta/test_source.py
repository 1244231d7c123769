"""Rules of the house that a reader of the source can check."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import segplug.model
import segplug.protocols
from segplug.kernel import KINDS, Kernel
from segplug.protocols.conformance import mismatch

ROOT = Path(__file__).resolve().parents[2]
CORE, PLUGINS = ROOT / "core", ROOT / "plugins"
SOURCES = sorted([*CORE.rglob("*.py"), *PLUGINS.rglob("*.py")])


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imports_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def dotted(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([*([node.id] if isinstance(node, ast.Name) else []), *reversed(parts)])


UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "os.system", "marshal.loads"}
UNSAFE_METHODS = {"extractall", "unpack_archive"}
BETWEEN_OWN_PROCESSES = {"executors.py": {"pickle.loads"}, "worker_process.py": {"pickle.loads"}}
"""The executor and its workers send each other pickles through a pipe that nobody else can write to."""

UNSAFE_KEYWORDS = {("weights_only", False), ("allow_pickle", True), ("shell", True)}


def unsafe_calls(tree: ast.AST) -> Iterator[str]:
    """Calls that run what a file holds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            if called in UNSAFE_CALLS or called.rpartition(".")[2] in UNSAFE_METHODS:
                yield f"line {node.lineno}: {called}"
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if any(keyword.arg == name and value is bad for name, bad in UNSAFE_KEYWORDS):
                    yield f"line {node.lineno}: {called}({keyword.arg}={value})"


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_nothing_runs_what_a_file_holds(file: Path) -> None:
    allowed = BETWEEN_OWN_PROCESSES.get(file.name, set())
    found = unsafe_calls(ast.parse(file.read_text(encoding="utf-8")))
    assert [call for call in found if call.partition(": ")[2] not in allowed] == []


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "zipfile.ZipFile(f).extractall(d)",
        "pickle.load(f)",
        "exec(code)",
    ],
)
def test_the_check_for_unsafe_calls_sees(code: str) -> None:
    assert len(list(unsafe_calls(ast.parse(code)))) == 1
    assert list(unsafe_calls(ast.parse("torch.load(f, weights_only=True); network.eval(); re.compile('x')"))) == []


@pytest.mark.parametrize(
    "file", [file for file in sorted(CORE.rglob("*.py")) if file.parent.name != "examples"], ids=name_of
)
def test_segplug_never_imports_its_built_in_plugins(file: Path) -> None:
    imported = imports_of(ast.parse(file.read_text(encoding="utf-8")))
    assert not [name for name in imported if name.partition(".")[0] == "segplug_builtin"]


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_the_environment_is_read_in_cli_alone(file: Path) -> None:
    if file.is_relative_to(CORE / "segplug" / "cli"):
        pytest.skip("the one place")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    used = {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {
        f"os.{a.name}" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "os" for a in n.names
    }
    assert not {"os.environ", "os.getenv", "os.environb"} & used


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_file_begins_by_saying_what_it_is(file: Path) -> None:
    assert file.stem != "utils"
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


def public_objects() -> list[tuple[str, Any]]:
    """Public classes, their methods and properties, and functions of the packages that plugins may use."""
    found = []
    for package in (segplug.protocols, segplug.model):
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            for name, value in vars(module).items():
                own = getattr(value, "__module__", None) == module.__name__
                if own and not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
                    found.append((f"{module.__name__}.{name}", value))
    return found


@pytest.mark.parametrize(("name", "value"), [pytest.param(n, v, id=n) for n, v in public_objects()])
def test_what_plugins_use_has_a_docstring(name: str, value: Any) -> None:
    documented = (value.__doc__ or "").strip()
    # a dataclass without a docstring gets its signature for one
    assert documented
    assert not documented.startswith(f"{value.__name__}(")


def everything_provided() -> list[Any]:
    registry = Kernel(discover=False).registry
    return [pytest.param(p, id=f"{kind}-{p.component.name}") for kind in KINDS for p in registry.all(kind)]


@pytest.mark.parametrize("provided", everything_provided())
def test_catalogue_component_loads_and_has_the_shape_of_its_kind(provided: Any) -> None:
    factory = provided.component.load()
    assert isinstance(provided.component.factory, str), "a text, so that a listing imports nothing"
    protocol = provided.kind.load_protocol()
    if provided.kind.style.value == "function" or not inspect.isclass(factory):
        found = mismatch(factory, protocol) if provided.kind.style.value == "function" else ""
        assert found == ""
        return
    # a class is checked by its methods, for its options are not known here
    for name, expected in vars(protocol).items():
        if inspect.isfunction(expected) and not name.startswith("_"):
            assert callable(getattr(factory, name, None)), name
        if name == "__call__":
            assert callable(getattr(factory, name, None)) or callable(getattr(factory, "forward", None))


IMPORTS = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize(
    "module",
    [
        "segplug",
        "segplug.kernel",
        "segplug.model",
        "segplug.protocols",
        "segplug.runtime.project",
        "segplug.runtime.workspace",
        "segplug.stages.verify",
        "segplug.stages.fingerprint",
        "segplug.stages.plan",
        "segplug.stages.preprocess",
        "segplug_builtin",
        "segplug_builtin.normalizers",
        "segplug_builtin.planners.default",
        "segplug_builtin.readers",
        "segplug_builtin.resamplers",
        "segplug_builtin.stores",
    ],
)
def test_importing_imports_neither_torch_nor_scipy(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS, module], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "scipy", "matplotlib", "rich"} & set(re.findall(r'"(\w+)"', done.stdout))
