"""The default plan, at isotropic spacing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from segplug import Component, hookimpl
from segplug.model import Budget, DatasetDescription, Fingerprint, Plan
from segplug.protocols import Planner
from segplug_builtin.planners import plan_default


def plan_isotropic(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """Resample volumes to the median of their finest spacings along every axis, and plan for those."""
    finest = float(np.median(np.min(fingerprint.spacings, axis=1)))
    flat = all(shape[0] == 1 for shape in fingerprint.shapes_after_crop)  # pictures stay as they are
    spacing = budget.spacing if flat else (finest,) * 3
    wanted = replace(budget, spacing=spacing, plans_name=budget.plans_name or "isotropicPlans")
    return replace(plan_default(fingerprint, dataset, wanted), planner="isotropic")


@hookimpl
def segplug_planners() -> Iterator[Component[Planner]]:
    yield Component("isotropic", f"{__name__}:plan_isotropic", "nnU-Net's default plan, at isotropic spacing")
