"""A raw data set in nnU-Net's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segplug.model.label_set import LabelSet


@dataclass(frozen=True)
class DatasetDescription:
    """dataset.json.

    Args:
        name: the data set's folder name, `Dataset004_Hippocampus`.
        channel_names: one per channel, in the order of the channel numbers.
        labels: what the label maps hold.
        file_ending: of images and label maps, with its dot.
        num_training: as the file states it (nnU-Net's batch size rule uses it).
        reader: name of the reader to use (`overwrite_image_reader_writer`), or None.
        raw: the file as it stands, for copying it beside models and predictions.
        normalizers: name of the normalizer for each channel, chosen by the plan stage from the channel's name; empty
            before that.
    """

    name: str
    channel_names: tuple[str, ...]
    labels: LabelSet
    file_ending: str
    num_training: int
    reader: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    normalizers: tuple[str, ...] = ()

    @property
    def num_channels(self) -> int:
        return len(self.channel_names)


@dataclass(frozen=True)
class Case:
    """Files of one case: one image file per channel (or one for all), and the label map if there is one."""

    name: str
    images: tuple[Path, ...]
    label: Path | None = None


@dataclass(frozen=True)
class RawDataset:
    """A data set's folder, description and training cases (sorted by name)."""

    folder: Path
    description: DatasetDescription
    cases: Mapping[str, Case]

    @property
    def name(self) -> str:
        return self.description.name
