"""segplug_model.json and MODEL_CARD.md beside imported models: they tell of all that lie there, not of the last import.

An archive holds both for its own models. Where models of other archives, or trained here, lie in the same folder, the
hashes of all are kept and the card is made anew.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from segplug.errors import DataError
from segplug.runtime.files import read_json, write_text
from segplug.runtime.model_archive import CARD, MANIFEST
from segplug.runtime.model_card import model_card
from segplug.runtime.model_description import describe_results
from segplug.runtime.model_names import trained_models


def read_installed(folder: Path) -> Mapping[str, Any]:
    """What segplug_model.json in a data set's folder of results says; empty if it is not there or damaged."""
    try:
        content = read_json(folder / MANIFEST)
    except DataError:
        return {}
    return content if isinstance(content, Mapping) else {}


def tell_of_all(
    folder: Path,
    before: Mapping[str, Any],
    *,
    models: Collection[str],
    replaced: Collection[PurePosixPath],
    has_manifest: bool,
) -> None:
    """Make both files tell of every model in a data set's folder of results, after an import.

    Args:
        before: `read_installed` before the import.
        models: names of those that were imported.
        replaced: places, as `Dataset004_X/nnUNetTrainer__nnUNetPlans__2d`, whose content is the archive's now.
        has_manifest: whether the archive brought a segplug_model.json; nnU-Net's bring none.
    """
    if {str(name) for name in trained_models(folder)} == set(models):
        for name in (MANIFEST, CARD):  # the archive's own hold; others told of what it replaced
            if PurePosixPath(folder.name, name) not in replaced:
                (folder / name).unlink(missing_ok=True)
        return
    described = describe_results(folder)
    latest = read_installed(folder) if has_manifest else {}
    if before or latest:
        content = {**before, **latest, "description": described.as_json()}
        for entry in ("trained_with", "files"):
            new = latest.get(entry)
            content[entry] = _kept(before.get(entry), folder.parent, replaced) | (
                dict(new) if isinstance(new, Mapping) else {}
            )
        write_text(folder / MANIFEST, json.dumps(content, indent=1))
    write_text(folder / CARD, model_card(described))


def _kept(files: Any, root: Path, replaced: Collection[PurePosixPath]) -> dict[str, Any]:
    """Entries of files that are there still and that no import has replaced."""
    found = files if isinstance(files, Mapping) else {}
    return {
        name: value
        for name, value in found.items()
        if not {PurePosixPath(name), *PurePosixPath(name).parents} & set(replaced) and (root / name).is_file()
    }
