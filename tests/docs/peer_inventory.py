"""Run with nnunetv2's Python: prints all that nnunetv2 offers, in the groups of docs/inventory.toml, as JSON.

Sources are parsed, not imported: some modules need what is not installed.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

GROUPS = {
    "training/nnUNetTrainer": "trainers",
    "experiment_planning": "planning",
    "preprocessing": "preprocessing",
    "imageio": "images",
    "training": "training",
    "run": "training",
    "inference": "inference",
    "ensembling": "after",
    "evaluation": "after",
    "postprocessing": "after",
    "model_sharing": "after",
    "dataset_conversion": "conversion",
    "utilities/label_handling": "labels",
    "utilities": "utilities",
    "paths": "utilities",
}
"""Folder or module of the package -> group of what its modules define; the first that fits."""

LEFT_OUT = ("tests", "batch_running", "dataset_conversion/datasets_for_integration_tests")
"""nnU-Net's own tests and its authors' jobs."""

FUNCTIONS_TOO = ("utilities/overlay_plots", "utilities/crossval_split", "utilities/get_network_from_plans")
"""Of `utilities`, whose other functions are helpers of the package, those that people call."""

METHODS = ("nnUNetTrainer", "nnUNetPredictor", "LabelManager", "DefaultPreprocessor", "DatasetFingerprintExtractor")
"""Classes whose public methods are listed each: people call them, or replace them in classes of their own."""

OPTIONS = ("ExperimentPlanner", "nnUNetPredictor", "nnUNetDataLoader", "LabelManager", "nnUNetTrainer")
"""Classes whose arguments, and constants that the constructor sets, are listed each."""


NO_KEYS = ("continue_training", "3d_fullres_bs4")
"""What stands where a key of plans might: an argument of the trainer, and a configuration made up for an example."""


def sources() -> dict[str, ast.Module]:
    """Path within the package, without its ending -> the module's source."""
    spec = find_spec("nnunetv2")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    names = {str(file.relative_to(root).with_suffix("")): file for file in sorted(root.rglob("*.py"))}
    return {
        name: ast.parse(file.read_text(encoding="utf-8"))
        for name, file in names.items()
        if not name.startswith(LEFT_OUT)
    }


def commands(modules: dict[str, ast.Module]) -> Iterator[tuple[str, str]]:
    """The arguments of every console script; its own name, where it has none."""
    for point in entry_points(group="console_scripts"):
        if point.name.startswith("nnUNetv2"):
            module = modules[point.module.removeprefix("nnunetv2.").replace(".", "/")]
            functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
            for argument in arguments(functions[point.attr], functions):
                yield point.name, argument


def arguments(function: ast.FunctionDef, functions: dict[str, ast.FunctionDef]) -> list[str]:
    """Of a function's parser, and of the functions that it hands its parser to."""
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            found += [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
            given = [argument.id for argument in node.args if isinstance(argument, ast.Name)]
            found += arguments(functions[node.func.id], functions) if "parser" in given else []
    return found


def definitions(name: str, module: ast.Module) -> Iterator[tuple[str, str]]:
    """Public classes and functions of a module, and what its larger classes have."""
    group = next((GROUPS[start] for start in GROUPS if name.startswith(start)), None)
    if group is None:
        return
    script = re.fullmatch(r"dataset_conversion/(Dataset\d+_.*)", name)
    if script:
        yield group, script[1]
        return
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            if not node.name.startswith("_") or group == "trainers":
                yield group, node.name
            yield from members(group, node)
        elif isinstance(node, ast.FunctionDef) and not re.search("^_|entry", node.name):
            yield from [(group, f"{node.name}()")] if group != "utilities" or name.startswith(FUNCTIONS_TOO) else []


def members(group: str, node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    group = "nnUNetTrainer" if node.name == "nnUNetTrainer" else group
    for method in (part for part in node.body if isinstance(part, ast.FunctionDef)):
        if node.name in METHODS and not method.name.startswith("_"):
            yield group, f"{node.name}.{method.name}()"
        if node.name in OPTIONS and method.name == "__init__":
            for argument in [*method.args.args, *method.args.kwonlyargs][1:]:
                yield group, f"{node.name}({argument.arg})"
            for statement in ast.walk(method):
                if isinstance(statement, ast.Assign) and isinstance(statement.value, (ast.Constant, ast.Tuple)):
                    for target in statement.targets:
                        plain = isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self"
                        value = statement.value
                        known = isinstance(value, ast.Tuple) or value.value is not None
                        if plain and known and isinstance(target, ast.Attribute) and target.attr[0] != "_":
                            yield group, f"{node.name}.{target.attr}"


def imported(name: str, module: ast.Module) -> Iterator[tuple[str, str]]:
    """Networks and transforms that nnU-Net takes from other packages."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module:
            classes = [alias.name for alias in node.names if alias.name[:1].isupper()]
            if node.module.startswith("dynamic_network_architectures.architectures"):
                yield from (("networks", each) for each in classes)
            if ".transforms." in node.module and name.startswith("training/nnUNetTrainer"):
                yield from (("transforms", each) for each in classes)


def keys(name: str, module: ast.Module) -> Iterator[tuple[str, str]]:
    """Keys of dataset.json, plans and checkpoints that the sources read or write, and environment variables."""
    for node in ast.walk(module):
        base, key = "", None
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            base, key = ast.unparse(node.value), node.slice.value
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            base, key = called.removesuffix(".get"), node.args[0].value
            base = (
                base
                if called.endswith((".get", "getenv", "_getDefaultValue", "_EnvPath", "_is_logger_enabled"))
                else ""
            )
        elif isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant):
            base, key = ast.unparse(node.comparators[0]), node.left.value
        if isinstance(key, str) and key not in NO_KEYS:
            of = base.lower()
            if re.search("environ|getenv|_getdefaultvalue|_envpath|_is_logger_enabled", of):
                yield "environment", key
            elif "dataset_json" in of or "label_dict" in of:
                yield "dataset.json", key
            elif "checkpoint" in of:
                yield "checkpoint", key
            elif "plan" in of or (name.endswith("plans_handler") and "configuration" in of):
                yield "plans.json", key


def inventory() -> dict[str, list[str]]:
    modules = sources()
    found: dict[str, set[str]] = {}
    for group, entry in commands(modules):
        found.setdefault(group, set()).add(entry)
    for name, module in modules.items():
        for group, entry in (*definitions(name, module), *imported(name, module), *keys(name, module)):
            found.setdefault(group, set()).add(entry)
    return {group: sorted(entries) for group, entries in sorted(found.items())}


if __name__ == "__main__":
    json.dump(inventory(), sys.stdout)
