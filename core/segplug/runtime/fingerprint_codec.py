"""dataset_fingerprint.json <-> `Fingerprint`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from segplug.errors import DataError
from segplug.model import ChannelStatistics, Fingerprint
from segplug.runtime.files import read_json, write_json

CHANNELS = "foreground_intensity_properties_per_channel"
OLD_CHANNELS = "foreground_intensity_properties_by_modality"
"""Name of the same entry in files of early nnU-Net v2 versions."""

RELATIVE_SIZE = "median_relative_size_after_cropping"
_KNOWN = {"spacings", "shapes_after_crop", CHANNELS, RELATIVE_SIZE}
_STATISTICS = tuple(sorted(f.name for f in fields(ChannelStatistics)))


def read_fingerprint(path: Path) -> Fingerprint:
    """Read dataset_fingerprint.json.

    Raises:
        DataError: the file is missing, is not JSON, or lacks an entry.
    """
    return decode_fingerprint(read_json(path), path)


def write_fingerprint(path: Path, fingerprint: Fingerprint) -> None:
    """Write dataset_fingerprint.json with sorted keys, as nnU-Net does; whole or not at all."""
    write_json(path, encode_fingerprint(fingerprint), sort_keys=True)


def decode_fingerprint(raw: Mapping[str, Any], source: Path) -> Fingerprint:
    """Turn the content of the file `source` into a `Fingerprint`.

    Raises:
        DataError: an entry is missing or has another form than nnU-Net gives it.
    """
    try:
        spacings = tuple(tuple(s) for s in raw["spacings"])
        shapes = tuple(tuple(s) for s in raw["shapes_after_crop"])
        relative_size = raw[RELATIVE_SIZE]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{source}: not a data set fingerprint: {_told(error)}. Run `segplug fingerprint` again"
        ) from None
    if len(spacings) != len(shapes):
        raise DataError(
            f"{source}: {len(spacings)} spacings for {len(shapes)} shapes; expected one of each per case. "
            "Run `segplug fingerprint` again"
        )
    extra = {key: value for key, value in raw.items() if key not in _KNOWN}
    return Fingerprint(spacings, shapes, decode_channels(raw, source), relative_size, extra)


def encode_fingerprint(fingerprint: Fingerprint) -> dict[str, Any]:
    """The file's content as JSON values."""
    return {
        "spacings": [list(s) for s in fingerprint.spacings],
        "shapes_after_crop": [list(s) for s in fingerprint.shapes_after_crop],
        CHANNELS: encode_channels(fingerprint.channels),
        RELATIVE_SIZE: fingerprint.median_relative_size_after_cropping,
        **fingerprint.extra,
    }


def decode_channels(raw: Mapping[str, Any], source: Path) -> tuple[ChannelStatistics, ...]:
    """Intensity statistics in the order of the channel numbers, from a fingerprint or a plan.

    Raises:
        DataError: the entry is missing, or a channel lacks a value.
    """
    table = raw.get(CHANNELS, raw.get(OLD_CHANNELS))
    if not isinstance(table, Mapping):
        raise DataError(f"{source}: no table {CHANNELS!r}. Run `segplug fingerprint` again")
    found = []
    for number in range(len(table)):
        entry = table.get(str(number))
        if not isinstance(entry, Mapping) or any(name not in entry for name in _STATISTICS):
            raise DataError(
                f"{source}: {CHANNELS}: channels are {', '.join(map(str, table))}, each with {', '.join(_STATISTICS)}; "
                f"found for channel {number}: {entry}. Run `segplug fingerprint` again"
            )
        found.append(ChannelStatistics(**{name: entry[name] for name in _STATISTICS}))
    return tuple(found)


def encode_channels(channels: tuple[ChannelStatistics, ...]) -> dict[str, dict[str, float]]:
    """`{"0": {"max": ..., "mean": ...}}`, names sorted as in nnU-Net's files."""
    return {str(number): dict(sorted(asdict(channel).items())) for number, channel in enumerate(channels)}


def _told(error: KeyError | TypeError) -> str:
    return f"no entry {error}" if isinstance(error, KeyError) else str(error)
