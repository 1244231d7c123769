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
from segplug.model import ComponentRef
from segplug.protocols import Decision, Postprocessor
from segplug.runtime.files import read_json, value_hash, write_json

POSTPROCESSING = "postprocessing.json"
PICKLE = "postprocessing.pkl"
DEFAULT_POSTPROCESSOR = "largest_component"
_EXTENSION = "segplug"


def write_decision(path: Path, decision: Decision, by: Provided, options: Mapping[str, Any]) -> None:
    """Write what a postprocessor decided; which one stands under `segplug`, a key that nnU-Net does not read.

    Args:
        options: that it decided with; it is made with them again to apply the decision.

    Raises:
        PluginError: the decision is not JSON.
    """
    named = replace(by, asked=by.qualified_name)
    extension: dict[str, Any] = {
        "version": segplug.__version__,
        "postprocessor": by.qualified_name,
        "provenance": record([named]),
    }
    if options:
        extension["options"] = dict(options)
    try:
        _check_keys(decision)
        write_json(path, {**decision, _EXTENSION: extension}, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise PluginError(
            f"postprocessors: {by.component.name!r} of {by.plugin} made a decision that is not JSON: {error}; expected "
            "a dict of texts, numbers, lists and dicts, with texts as keys"
        ) from error


def read_decision(path: Path) -> tuple[Decision, ComponentRef]:
    """The decision and the postprocessor that made it, with its options.

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
    options = extension.get("options", {})
    if not isinstance(options, Mapping):
        raise DataError(f"{file}: options of {name!r} are a {type(options).__name__}. Fit the postprocessing again")
    return {key: value for key, value in content.items() if key != _EXTENSION}, ComponentRef(name, options)


def build_postprocessor(registry: Registry, path: Path) -> Postprocessor:
    """The postprocessor that made a decision.

    Args:
        path: the file, or the folder it lies in.

    Raises:
        UsageError, DataError: see `read_decision`.
        PluginError: it is not installed; what to install is told if the file knows.
    """
    _, ref = read_decision(path)
    try:
        registry.find("postprocessors", ref.name)
    except WrongReferenceError as error:
        file = decision_file(path)
        provenance = read_json(file).get(_EXTENSION, {}).get("provenance")
        if not isinstance(provenance, list) or not all(isinstance(entry, Mapping) for entry in provenance):
            raise
        listed = "\n  ".join(differences(provenance, registry))
        raise PluginError(f"{file} was decided with other plugins:\n  {listed}") from error
    made: Postprocessor = registry.build("postprocessors", ref)
    return made


def applied_by(ref: ComponentRef) -> dict[str, str]:
    """What tells results of one postprocessor, with its options, from those of others."""
    options = {"options": value_hash(dict(ref.options))} if ref.options else {}
    return {"postprocessor": ref.name, **options}


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


def _check_keys(value: Any) -> None:
    """JSON makes texts of other keys, and `apply` would look for what is no longer there."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for key in value if isinstance(value, Mapping) else ():
        if not isinstance(key, str):
            raise TypeError(f"key {key!r} is a {type(key).__name__}")
    for part in inner:
        _check_keys(part)
