"""What a converter has found out: the raw data set to be, file by file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ConvertedFile:
    """One step of a conversion: files of the new data set that are made together.

    Args:
        case: name of the case, for messages.
        sources: what they are made from; only read.
        targets: paths within the new data set, as `imagesTr/CASE_0000.nii.gz`.
        make: None where the one source is taken as it is (copied, or linked); else called in a worker with the paths
            to write, in the order of `targets`; importable by name, or a `functools.partial` of such a function. It
            raises `DataError` where a source is not what it has to be.
    """

    case: str
    sources: tuple[Path, ...]
    targets: tuple[str, ...]
    make: Callable[[tuple[Path, ...]], None] | None = None


@dataclass(frozen=True)
class Conversion:
    """A data set as it will be once its files are made.

    Args:
        description: the content of dataset.json.
        files: every other file.
        notes: what was decided or left out, for the user; a sentence each, without a full stop.
        record: what else should be kept of it in conversion.json, as which number a label had. JSON values.
    """

    description: Mapping[str, Any]
    files: tuple[ConvertedFile, ...]
    notes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
