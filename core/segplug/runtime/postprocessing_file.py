"""postprocessing.json: what was decided about clean-up, in nnU-Net's form.

nnU-Net writes a postprocessing.pkl beside it and reads only that; segplug reads the JSON and never a pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import segplug
from segplug.errors import DataError, PluginError, UsageError, WrongReferenceError
from segplug.kernel import Registry
from segplug.kernel.plugins import Provided
from segplug.kernel.provenance import differences, record
from segplug.protocols import Decision, Postprocessor
from segplug.runtime.files import read_json, write_json

POSTPROCESSING = "postprocessing.json"
PICKLE = "postprocessing.pkl"
DEFAULT_POSTPROCESSOR = "largest_component"
_EXTENSION = "segplug"


def write_decision(path: Path, decision: Decision, by: Provided) -> None:
    """Write what a postprocessor decided; which one stands under `segplug`, a key that nnU-Net does not read."""
    named = replace(by, asked=by.qualified_name)
    extension = {
        "version": segplug.__version__,
        "postprocessor": by.qualified_name,
        "provenance": record([named]),
    }
    write_json(path, {**decision, _EXTENSION: extension}, sort_keys=True)


def read_decision(path: Path) -> tuple[Decision, str]:
    """The decision and the name of the postprocessor that made it.

    Args:
        path: the file, or the folder it lies in.

    Raises:
        UsageError: it is a pickle.
        DataError: it is missing, or no such decision.
    """
    file = decision_file(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file. Decide first: segplug postprocess fit -i PREDICTIONS -r REFERENCES")
    content = read_json(file)
    if not isinstance(content, Mapping):
        raise DataError(f"{file}: a {type(content).__name__}; expected what 'segplug postprocess fit' writes")
    extension = content.get(_EXTENSION, {})
    name = extension.get("postprocessor", DEFAULT_POSTPROCESSOR) if isinstance(extension, Mapping) else None
    if not isinstance(name, str):
        raise DataError(f"{file}: names no postprocessor under {_EXTENSION!r}. Fit the postprocessing again")
    return {key: value for key, value in content.items() if key != _EXTENSION}, name


def build_postprocessor(registry: Registry, path: Path) -> Postprocessor:
    """The postprocessor that made a decision.

    Args:
        path: the file, or the folder it lies in.

    Raises:
        UsageError, DataError: see `read_decision`.
        PluginError: it is not installed; what to install is told if the file knows.
    """
    _, name = read_decision(path)
    try:
        registry.find("postprocessors", name)
    except WrongReferenceError as error:
        file = decision_file(path)
        provenance = read_json(file).get(_EXTENSION, {}).get("provenance")
        if not isinstance(provenance, list) or not all(isinstance(entry, Mapping) for entry in provenance):
            raise
        listed = "\n  ".join(differences(provenance, registry))
        raise PluginError(f"{file} was decided with other plugins:\n  {listed}") from error
    made: Postprocessor = registry.build("postprocessors", name)
    return made


def decision_file(path: Path) -> Path:
    """The JSON file that is meant by itself or by its folder.

    Raises:
        UsageError: it is a pickle.
    """
    if path.suffix == ".pkl":
        raise UsageError(
            f"{path}: a pickle can run code when it is read, so it is not. Give the {POSTPROCESSING} that nnU-Net "
            "writes beside it"
        )
    return path / POSTPROCESSING if path.is_dir() else path


def has_steps(decision: Mapping[str, Any]) -> bool:
    """False if it is known that the decision changes nothing: nnU-Net's, without any function."""
    return decision.get("postprocessing_fns") != []
