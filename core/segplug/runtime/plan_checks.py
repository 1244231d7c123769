"""Plans edited by hand: every entry that nothing can work with is told, before anything is begun."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segplug.errors import DataError
from segplug.model import ComponentRef, Configuration, Plan
from segplug.runtime.wording import counted

NNUNET_NETWORKS = "dynamic_network_architectures."
"""Begins nnU-Net's names of networks, whose `strides` halve the patch at each stage."""

MOST_SAMPLES = 100_000
"""Of a batch; MOST_VOXELS of a patch (float32 of one channel is 8 GiB then) and MOST_FEATURES of a stage: beyond these
no machine trains or predicts, so the number is a slip of the pen, or meant to bring a program down."""
MOST_VOXELS = 2**31
MOST_FEATURES = 65_536

_LONGEST = 200
"""Characters of a value that a message shows."""


def check_plan(plan: Plan, source: Path) -> None:
    """Refuse a plan with entries of another type, number or size than the stages rely on.

    Raises:
        DataError: naming file, configuration, entry, what was found and what was expected, for all of them.
    """
    problems = list(_of_plan(plan))
    for configuration in plan.configurations.values():
        problems += [f"configuration {configuration.name!r}: {text}" for text in _of_configuration(configuration)]
    if not problems:
        return
    remedy = "Mend it by hand or plan again"
    if len(problems) == 1:
        raise DataError(f"{source}: {problems[0]}. {remedy}")
    lines = "\n".join(f"  {text}" for text in problems)
    raise DataError(f"{source}: {counted(len(problems), 'entry', 'entries')} cannot be:\n{lines}\n{remedy}")


def _of_plan(plan: Plan) -> Iterator[str]:
    for name in ("dataset_name", "plans_name"):
        if not _is_text(getattr(plan, name)):
            yield _told(name, getattr(plan, name), "a text")
    for name in ("transpose_forward", "transpose_backward"):
        axes = getattr(plan, name)
        if sorted(map(str, axes)) != ["0", "1", "2"] or not all(_is_whole(axis, 0) for axis in axes):
            yield _told(name, list(axes), "the axes 0, 1 and 2 in some order")
    yield from _of_component("image_reader_writer", plan.reader)
    for name, recipe in plan.training.items():
        yield from _of_component(f"segplug.training of {name or '*'}", recipe)


def _of_configuration(configuration: Configuration) -> Iterator[str]:
    identifier = configuration.data_identifier
    if not _is_text(identifier) or re.search(r"[/\\\0]", identifier) or identifier.startswith("."):
        yield _told("data_identifier", identifier, "a plain folder name: the folder stands beside the plans")
    if not _is_whole(configuration.batch_size, 1):
        yield _told("batch_size", configuration.batch_size, "a whole number from 1 on")
    elif configuration.batch_size > MOST_SAMPLES:
        yield _told("batch_size", configuration.batch_size, f"at most {MOST_SAMPLES}")
    patch, spacing = configuration.patch_size, configuration.spacing
    if len(patch) not in (2, 3) or not all(_is_whole(n, 1) for n in patch):
        yield _told("patch_size", list(patch), "two or three whole numbers from 1 on")
    elif math.prod(patch) > MOST_VOXELS:
        yield _told("patch_size", list(patch), f"at most {MOST_VOXELS} voxels together")
    elif len(spacing) != len(patch) or not all(_is_number(s) and s > 0 for s in spacing):
        yield _told("spacing", list(spacing), f"{len(patch)} numbers above 0, one per axis of the patch")
    else:
        yield from of_strides(configuration)
    masks = configuration.use_mask_for_norm
    if len(masks) != len(configuration.normalization) or not all(isinstance(m, bool) for m in masks):
        schemes = counted(len(configuration.normalization), "entry", "entries")
        yield _told("use_mask_for_norm", list(masks), f"true or false for each of normalization_schemes ({schemes})")
    batch_dice: Any = configuration.batch_dice
    if not isinstance(batch_dice, bool):
        yield _told("batch_dice", batch_dice, "true or false")
    for number, ref in enumerate(configuration.normalization):
        yield from _of_component(f"normalization_schemes[{number}]", ref)
    yield from _of_component("resampling_fn_data", configuration.resample_data)
    yield from _of_component("resampling_fn_seg", configuration.resample_seg)
    yield from _of_component("resampling_fn_probabilities", configuration.resample_probabilities)
    yield from _of_component("architecture", configuration.architecture)
    yield from _of_features(configuration)


def _of_features(configuration: Configuration) -> Iterator[str]:
    """Features of nnU-Net's networks that no memory holds."""
    architecture = configuration.architecture
    if not _has_options(architecture) or not str(architecture.name).startswith(NNUNET_NETWORKS):
        return
    features = architecture.options.get("features_per_stage")
    numbers = features if isinstance(features, (list, tuple)) else [features]
    if any(isinstance(number, (int, float)) and number > MOST_FEATURES for number in numbers):
        yield _told("features_per_stage", features, f"at most {MOST_FEATURES} in a stage")


def of_strides(configuration: Configuration) -> Iterator[str]:
    """A patch that the network cannot halve as often as its strides want."""
    strides = configuration.architecture.options.get("strides") if _has_options(configuration.architecture) else None
    patch = configuration.patch_size
    if not str(configuration.architecture.name).startswith(NNUNET_NETWORKS) or not isinstance(strides, list):
        return
    stages = [[stage] * len(patch) if _is_whole(stage, 1) else stage for stage in strides]
    if not all(isinstance(s, list) and len(s) == len(patch) and all(_is_whole(n, 1) for n in s) for s in stages):
        return  # the architecture tells
    factors = [math.prod(stage[axis] for stage in stages) for axis in range(len(patch))]
    if any(size % factor for size, factor in zip(patch, factors, strict=True)):
        yield _told("patch_size", list(patch), f"multiples of {factors}, by which the network's strides divide it")


def _of_component(entry: str, ref: ComponentRef) -> Iterator[str]:
    if not _is_text(ref.name):
        yield _told(entry, ref.name, "the name of a component")
    if not _has_options(ref):
        yield _told(f"options of {entry}", ref.options, "names with values, {...}")


def _has_options(ref: ComponentRef) -> bool:
    return isinstance(ref.options, Mapping)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _told(entry: str, found: Any, expected: str) -> str:
    try:
        text = repr(found)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        text = "a number of thousands of digits"
    return f"{entry} is {text if len(text) <= _LONGEST else text[:_LONGEST] + '...'}; expected {expected}"
