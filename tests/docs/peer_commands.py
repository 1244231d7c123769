"""Run with nnunetv2's Python: prints its commands with their arguments, and its trainer classes, as JSON.

Sources are parsed, not imported: some modules need what is not installed.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path


def commands() -> dict[str, list[str]]:
    """Names of the arguments of every console script."""
    found = {}
    for point in entry_points(group="console_scripts"):
        if point.name.startswith("nnUNetv2"):
            spec = find_spec(point.module)
            assert spec is not None
            assert spec.origin is not None
            functions = {
                node.name: node
                for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
                if isinstance(node, ast.FunctionDef)
            }
            found[point.name] = sorted(set(arguments(functions[point.attr], functions)))
    return found


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


def trainer_classes() -> list[str]:
    spec = find_spec("nnunetv2")
    assert spec is not None
    assert spec.origin is not None
    files = (Path(spec.origin).parent / "training" / "nnUNetTrainer").rglob("*.py")
    return sorted(
        name for file in files for name in re.findall(r"^class (\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    )


if __name__ == "__main__":
    json.dump({"commands": commands(), "classes": trainer_classes()}, sys.stdout)
