"""nnU-Net's default planner: plain U-Nets for 8 GB of GPU memory (`ExperimentPlanner`)."""

from __future__ import annotations

from segplug.model import Budget, DatasetDescription, Fingerprint, Plan
from segplug_builtin.planners.rules import Reference, Rules
from segplug_builtin.planners.unets import plan_unets

RULES = Rules(
    name="ExperimentPlanner",
    plans_name="nnUNetPlans",
    residual=False,
    two_dimensional=Reference(cost=85e6, batch_size=12, max_features=512),
    three_dimensional=Reference(cost=560e6, batch_size=2, max_features=320),
    memory_gb=8,
    encoder_blocks=(2,),
    decoder_convolutions=2,
    dataset_share=0.05,
    weigh_minimum_batch=True,
)


def plan_default(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """Equal, entry by entry, to what nnunetv2 2.8.1 plans.

    Raises:
        DataError, UsageError: see `plan_unets`.
    """
    return plan_unets(fingerprint, dataset, budget, RULES)
