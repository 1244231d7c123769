"""What a finished piece of work was made from, and whether that is still so.

A manifest is a JSON value kept with the result: the files that went in (name, size, time of change, SHA-256) and the
settings that decide what comes out. The result counts as current while both are the same. Where files lie does not
matter, so a data set can be moved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segplug import __version__
from segplug.runtime.files import file_hash, file_state

Manifest = Mapping[str, Any]


def made_from(inputs: Sequence[Path], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a result about to be made. Reads the files, for their hashes; so make it before the result."""
    return manifest_of(described(inputs), settings)


def described(inputs: Sequence[Path]) -> list[dict[str, Any]]:
    """What a manifest says of files; for several manifests of the same ones."""
    return [{**_state(path), "sha256": file_hash(path)} for path in inputs]


def manifest_of(inputs: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a result about to be made from what `described` found before."""
    return {"inputs": list(inputs), "settings": _plain(settings), "segplug": __version__}


def staleness(manifest: Manifest | None, inputs: Sequence[Path], settings: Mapping[str, Any], *, hashing: bool) -> str:
    """Why a result has to be made again; empty if it is current.

    Args:
        manifest: kept with the result; None if there is no whole result.
        inputs: the files now, in the order they were recorded.
        hashing: compare contents of files whose time of change alone differs; False takes those for changed.
    """
    if manifest is None:
        return "new"
    keys = changed_settings(manifest, settings)
    if keys:
        return f"other settings ({', '.join(keys)})"
    recorded = manifest.get("inputs")
    if not isinstance(recorded, Sequence) or [r.get("name") for r in recorded] != [path.name for path in inputs]:
        return "other files"
    for entry, path in zip(recorded, inputs, strict=True):
        state = _state(path)
        same_size, same_time = (entry.get(key) == state[key] for key in ("size", "mtime_ns"))
        if not same_size or (not same_time and not (hashing and entry.get("sha256") == file_hash(path))):
            return f"{path.name} has changed"
    return ""


def changed_settings(manifest: Manifest, settings: Mapping[str, Any]) -> list[str]:
    """Names of the settings in which a result differs from these, sorted."""
    then, now = manifest.get("settings"), _plain(settings)
    known = then if isinstance(then, Mapping) else {}
    return sorted(key for key in {*known, *now} if key not in known or key not in now or known[key] != now[key])


def _state(path: Path) -> dict[str, Any]:
    return {"name": path.name, **asdict(file_state(path))}


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from a file: tuples become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain
