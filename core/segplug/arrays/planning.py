"""Fingerprint, plan and preprocessing of cases in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.arrays.images import usual_project
from segplug.errors import DataError, UsageError
from segplug.model import Budget, ComponentRef, DatasetDescription, Fingerprint, Image, Labels, Plan
from segplug.runtime.intensities import TOTAL_DRAWS
from segplug.runtime.preprocessing import preprocess_image
from segplug.runtime.project import Project
from segplug.stages.fingerprint import DrawnIntensities, combine, measure_arrays
from segplug.stages.plan import make_plan, with_components

READER = "SimpleITKIO"
"""Which would read the images if they were written."""


@dataclass(frozen=True)
class Preprocessed:
    """A case as the network sees it.

    Args:
        data: float32 (channels, z, y, x) in the plan's order of axes: cropped, normalised, resampled.
        target: int16 (1, z, y, x), -1 for background outside of what is not zero; None without labels.
        properties: what was done, by nnU-Net's names.
    """

    data: NDArray[np.float32]
    target: NDArray[np.int16] | None
    properties: Mapping[str, Any]


def fingerprint(cases: Sequence[tuple[Image, Labels]]) -> Fingerprint:
    """Measure training cases: shapes, spacings, foreground intensities. The same as of files of these arrays
    (but that NIfTI keeps seven digits of a spacing).

    Args:
        cases: in the order of their names, which files would be read in. Each is looked at once, so that the sequence
            may make them as they are asked for.

    Raises:
        DataError: a case holds what is not finite, image and labels differ in shape, or no case has foreground.
        UsageError: there are no cases.
    """
    if not len(cases):
        raise UsageError("no cases to measure")
    draws, measured = int(TOTAL_DRAWS // len(cases)), []
    drawn: DrawnIntensities | None = None
    for number in range(len(cases)):
        image, labels = cases[number]
        drawn = drawn or DrawnIntensities(len(image.array))
        try:
            found = measure_arrays(str(number), image, labels, draws)
            drawn.add(found.intensities)
        except ValueError:
            raise DataError(f"case {number}: {len(image.array)} channels; expected as many as case 0 has") from None
        measured.append(found)
    assert drawn is not None
    return combine("in memory", measured, drawn)


def plan(
    fingerprint: Fingerprint,
    description: DatasetDescription,
    *,
    planner: str | ComponentRef = "default",
    memory_gb: float | None = None,
    spacing: Sequence[float] | None = None,
    plans_name: str | None = None,
    project: Project | None = None,
) -> Plan:
    """Plan networks and preprocessing.

    Args:
        description: see `describe`.
        planner, memory_gb, spacing, plans_name: as `segplug.plan`.

    Raises:
        DataError, UsageError, PluginError: see `segplug.plan`.
    """
    kernel = (project or usual_project()).kernel
    budget = Budget(memory_gb, None if spacing is None else tuple(spacing), plans_name)
    ref = ComponentRef(planner) if isinstance(planner, str) else planner
    return make_plan(kernel, fingerprint, with_components(kernel, description, READER), ref, budget)


def preprocess(
    image: Image,
    plan: Plan,
    configuration: str,
    *,
    labels: Labels | None = None,
    project: Project | None = None,
) -> Preprocessed:
    """Transpose, crop, normalise and resample one case as a configuration of a plan says.

    Raises:
        UsageError: the plan has no such configuration.
        DataError: the image has a value that is not finite, or other channels than the plan, or the label map has
            another shape.
    """
    if configuration not in plan.configurations:
        raise UsageError(f"no configuration {configuration!r}; the plan has: {', '.join(plan.configurations)}")
    registry = (project or usual_project()).kernel.registry
    return Preprocessed(*preprocess_image(image, labels, plan, plan.configurations[configuration], registry))
