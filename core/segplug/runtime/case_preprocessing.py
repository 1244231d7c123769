"""One training case from its files into the stores that want it: what a worker of the preprocess stage does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segplug.errors import DataError
from segplug.kernel import Registry
from segplug.model import Case, ComponentRef, Configuration, DatasetDescription, Image, Labels, LabelSet, Plan
from segplug.protocols import PreprocessedCase, Reader, Store
from segplug.runtime.case_reading import channel_file, read_image, read_labels
from segplug.runtime.class_locations import class_locations
from segplug.runtime.geometry import differences
from segplug.runtime.manifest import described, manifest_of, staleness
from segplug.runtime.preprocessing import NotFiniteError, Preprocessing
from segplug.runtime.reference_labels import copy_references, references_are_current
from segplug.runtime.wording import counted

VERSION = 1
"""Raised when the same case and settings give other voxels, so that old cases are made anew."""


@dataclass(frozen=True)
class StoreTarget:
    """One data identifier to fill, and how."""

    identifier: str
    store: Store
    steps: Preprocessing
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class CaseWork:
    """What has to be known of the data set to work on its cases. `references`: folder for copies of the label maps."""

    reader: Reader
    description: DatasetDescription
    targets: tuple[StoreTarget, ...]
    references: Path


def is_current(case: Case, work: CaseWork) -> bool:
    """A quick look, by size and time of change, whether nothing is to be done; `preprocess_case` looks closer."""
    if case.label is None:
        return False
    files = (*case.images, case.label)
    return references_are_current(case, work.references, work.description.file_ending) and not any(
        staleness(t.store.made_from(case.name), files, t.settings, hashing=False) for t in work.targets
    )


def preprocess_case(case: Case, work: CaseWork) -> dict[str, str]:
    """Preprocess one case where it is not current; what a worker does.

    Returns:
        Data identifier -> why the case was made there; those where it was kept are left out.

    Raises:
        DataError: the case cannot be read, or its labels do not fit the image or dataset.json.
    """
    if case.label is None:
        raise DataError(f"case {case.name}: no label map; expected one for every training case")
    copy_references(case, work.references, work.description.file_ending)
    files = (*case.images, case.label)
    stale = {
        t.identifier: staleness(t.store.made_from(case.name), files, t.settings, hashing=True) for t in work.targets
    }
    stale = {name: why for name, why in stale.items() if why}
    if not stale:
        return {}
    inputs = described(files)
    manifests = {t.identifier: manifest_of(inputs, t.settings) for t in work.targets if t.identifier in stale}
    labels = read_labels(work.reader, case.label)  # first: reading takes twice what is kept, before there is an image
    image = read_image(work.reader, case, work.description.num_channels)
    _check_grid(case, labels, image)
    _check_values(case, labels, work.description.labels)
    try:
        cropped = work.targets[0].steps.crop(image, labels, consumed=True)  # their axis order is the plan's
    except NotFiniteError as error:
        raise DataError(f"{channel_file(case, error.channel)}: {error}") from None
    del image, labels
    wanted = [target for target in work.targets if target.identifier in stale]
    groups = _alike(wanted)
    for number, group in enumerate(groups):
        last = number == len(groups) - 1
        normalised = group[0].steps.normalise(cropped, consumed=last)
        if last:
            del cropped
        for place, target in enumerate(group):
            data = target.steps.resampled_image(normalised)
            if place == len(group) - 1:  # nobody needs the image as it was: it makes room for the labels
                normalised = replace(normalised, data=data)
            resampled = target.steps.resampled_target(normalised)
            assert resampled is not None
            locations = class_locations(resampled, work.description.labels)
            result = PreprocessedCase(data, resampled, dict(normalised.properties), locations)
            target.store.write(case.name, result, manifests[target.identifier])
            del data, resampled, result  # before there are the next ones
    return stale


def _alike(targets: Sequence[StoreTarget]) -> list[list[StoreTarget]]:
    """Targets by what they normalise to."""
    groups: list[list[StoreTarget]] = []
    for target in targets:
        group = next((g for g in groups if g[0].steps.normalises_as(target.steps)), None)
        if group is None:
            groups.append([target])
        else:
            group.append(target)
    return groups


def preprocessing_settings(
    plan: Plan, configuration: Configuration, description: DatasetDescription, registry: Registry
) -> dict[str, Any]:
    """All that decides what becomes of a case besides its files, as JSON values."""
    labels = description.labels

    def component(kind: str, ref: ComponentRef) -> list[Any]:
        provided = registry.resolve(kind, ref.name)
        version = "" if provided.plugin.builtin else provided.plugin.version
        return [provided.qualified_name, version, dict(ref.options)]

    return {
        "version": VERSION,
        "reader": component("readers", plan.reader),
        "transpose": list(plan.transpose_forward),
        "spacing": list(configuration.spacing),
        "normalization": [component("normalizers", ref) for ref in configuration.normalization],
        "use_mask_for_norm": list(configuration.use_mask_for_norm),
        "intensities": [vars(channel) for channel in plan.channels],
        "resampling": [
            component("resamplers", ref) for ref in (configuration.resample_data, configuration.resample_seg)
        ],
        "labels": [list(labels.all_labels), labels.ignore_label, list(labels.classes)],
    }


def _check_grid(case: Case, labels: Labels, image: Image) -> None:
    """Refuse a label map that lies elsewhere than the image.

    Raises:
        DataError: saying in what they differ.
    """
    for difference in differences(labels.geometry, labels.shape, image.geometry, image.shape):
        if not difference.aligned:
            raise DataError(
                f"case {case.name}: {case.label}: {difference.what} {difference.found}; expected {difference.expected} "
                "(the image's). Resample the label map to the image's grid, or correct its header if the voxels match"
            )


def _check_values(case: Case, labels: Labels, known: LabelSet) -> None:
    """Refuse labels that dataset.json does not have.

    Raises:
        DataError: naming them and how often they occur.
    """
    allowed = sorted({*known.all_labels, *([] if known.ignore_label is None else [known.ignore_label])})
    consecutive = allowed == list(range(allowed[-1] + 1))
    if consecutive and labels.array.min(initial=0) >= 0 and labels.array.max(initial=0) <= allowed[-1]:
        return
    strange = labels.array[~np.isin(labels.array, allowed)]
    if strange.size:
        values, counts = np.unique(strange, return_counts=True)
        listed = ", ".join(f"{v} ({counted(n, 'voxel')})" for v, n in list(zip(values, counts, strict=True))[:10])
        raise DataError(
            f"case {case.name}: {case.label}: labels that dataset.json does not have: {listed}; expected "
            f"{allowed}. Correct the label map, or add the labels to dataset.json"
        )
