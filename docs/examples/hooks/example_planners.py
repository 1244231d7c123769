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
    """Resample all images to the median of their finest spacings along every axis, and plan for those."""
    finest = float(np.median(np.min(fingerprint.spacings, axis=1)))
    wanted = replace(budget, spacing=(finest,) * 3, plans_name=budget.plans_name or "isotropicPlans")
    return replace(plan_default(fingerprint, dataset, wanted), planner="isotropic")


@hookimpl
def segplug_planners() -> Iterator[Component[Planner]]:
    yield Component("isotropic", f"{__name__}:plan_isotropic", "nnU-Net's default plan, at isotropic spacing")
