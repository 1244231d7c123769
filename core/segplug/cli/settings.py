"""The one place where settings are read: command line > segplug.toml > environment > defaults."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from segplug.errors import UsageError
from segplug.runtime.device import PRECISIONS

FILE_NAME = "segplug.toml"
ROOTS = ("raw", "preprocessed", "results")


@dataclass(frozen=True)
class Roots:
    """What was given before the command's name."""

    raw: Path | None = None
    preprocessed: Path | None = None
    results: Path | None = None
    settings: Path | None = None
    executor: str | None = None


@dataclass(frozen=True)
class Settings:
    """All settings, from wherever they came. `executors` holds options of executors by their name,
    `options` those of plugins."""

    raw: Path | None = None
    preprocessed: Path | None = None
    results: Path | None = None
    workers: int | None = None
    executor: str = "local"
    executors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    device: str = "auto"
    precision: str = "auto"
    pins: Mapping[str, str] = field(default_factory=dict)
    block: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_TABLES: dict[str, tuple[str, ...]] = {
    "paths": ROOTS,
    "defaults": ("workers", "executor", "device", "precision"),
    "plugins": ("block",),
}
"""Tables and keys of segplug.toml. `pins` may hold any `<kind>.<name>`, `executors` a table for any executor,
`options` one for any plugin."""

_OPEN_TABLES = ("pins", "executors", "options")


def read_settings(roots: Roots, environment: Mapping[str, str] | None = None) -> Settings:
    """Combine all sources.

    Raises:
        UsageError: the settings file is missing, is not TOML, or has unknown keys or wrong types.
    """
    environment = os.environ if environment is None else environment
    file = roots.settings or _find_file()
    from_file = _read_file(file) if file is not None else {}
    paths = {}
    for name in ROOTS:
        given = getattr(roots, name)
        found = from_file.get("paths", {}).get(name)
        if given is not None:
            paths[name] = given.expanduser()
        elif found is not None and file is not None:
            paths[name] = (file.parent / Path(found).expanduser()).resolve()
        else:
            text = environment.get(f"SEGPLUG_{name.upper()}") or environment.get(f"nnUNet_{name}")
            paths[name] = Path(text).expanduser() if text else None
    defaults = dict(from_file.get("defaults", {}))
    for name in ("workers", "executor", "device", "precision"):
        text = environment.get(f"SEGPLUG_{name.upper()}")
        if text and name not in defaults:
            defaults[name] = _whole_number(text) if name == "workers" else text
            _check_compute(f"SEGPLUG_{name.upper()}", name, text)
    if roots.executor is not None:
        defaults["executor"] = roots.executor
    block = tuple(from_file.get("plugins", {}).get("block", ()))
    executors = from_file.get("executors", {})
    options = from_file.get("options", {})
    pins = _pins(from_file.get("pins", {}))
    return Settings(**paths, **defaults, executors=executors, pins=pins, block=block, options=options)


def _find_file() -> Path | None:
    here = Path.cwd()
    return next((folder / FILE_NAME for folder in (here, *here.parents) if (folder / FILE_NAME).is_file()), None)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{file}: no such settings file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not TOML: {error}") from None
    for table, values in content.items():
        _known(file, table, (*_TABLES, *_OPEN_TABLES), "table")
        if not isinstance(values, dict):
            raise UsageError(f"{file}: {table!r} must be a table ([{table}])")
        for key, value in values.items():
            if table in ("executors", "options") and not isinstance(value, dict):
                raise UsageError(f"{file}: {table}.{key} is {value!r}; expected a table of its options")
            if table not in _OPEN_TABLES:
                _known(file, key, _TABLES[table], f"key in [{table}]")
                _typed(file, f"{table}.{key}", value)
    return content


def _known(file: Path, name: str, known: tuple[str, ...], what: str) -> None:
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"{file}: no {what} is called {name!r}.{hint} There are: {', '.join(known)}")


def _typed(file: Path, key: str, value: Any) -> None:
    if key == "defaults.workers":
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UsageError(f"{file}: {key} is {value!r}; expected a whole number, 0 or more")
    elif key == "plugins.block":
        if not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise UsageError(f"{file}: {key} is {value!r}; expected a list of plugin names")
    elif not isinstance(value, str):
        raise UsageError(f"{file}: {key} is {value!r}; expected a text")
    _check_compute(f"{file}: {key}", key.rpartition(".")[2], value)


def _check_compute(where: str, name: str, value: Any) -> None:
    """Mistakes in words that only training and prediction use; whether the machine has such a device is seen there."""
    if name == "device" and not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise UsageError(f"{where} is {value!r}; expected auto, cpu, cuda, cuda:N or mps")
    if name == "precision" and value not in PRECISIONS:
        raise UsageError(f"{where} is {value!r}; expected one of {', '.join(PRECISIONS)}")


def _pins(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """`losses.dice_ce = "x:y"` and `"losses.dice_ce" = "x:y"` mean the same in TOML's eyes and in ours."""
    pins: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            pins |= _pins(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            pins[prefix + key] = value
        else:
            raise UsageError(f"pin {prefix}{key} is {value!r}; expected 'plugin:name'")
    return pins


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"SEGPLUG_WORKERS is {text!r}; expected a whole number, 0 or more")
    return int(text)
