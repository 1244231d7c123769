"""nnunetv2's trainer classes by name, for scripts that are run with its Python.

Its own search imports every module, and so fails where one of them needs something that is not installed.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import nnunetv2.training.nnUNetTrainer as package


def trainer_modules() -> dict[str, str]:
    """Module of every trainer class."""
    root = Path(next(iter(package.__path__)))
    found = {}
    for file in sorted(root.rglob("*.py")):
        module = ".".join([package.__name__, *file.relative_to(root).with_suffix("").parts])
        for name in re.findall(r"^class (\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE):
            found[name] = module
    return found


def trainer_class(name: str) -> Any:
    """The class; its module is imported."""
    return getattr(import_module(trainer_modules()[name]), name)
