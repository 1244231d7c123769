"""Small U-Nets and a short schedule, for machines without a GPU.

Axis order, spacings, normalisation and the set of configurations are the default planner's, so that the preprocessed
data serve both. Only what is trained differs: half the features, patch and batch for a budget of computing time, and a
training recipe.
"""

from __future__ import annotations

import math
from dataclasses import replace

from segplug.errors import UsageError
from segplug.model import Budget, ComponentRef, Configuration, DatasetDescription, Fingerprint, Plan
from segplug_builtin.planners.default import RULES, plan_default
from segplug_builtin.planners.patch_size import Task, plan_network
from segplug_builtin.planners.rules import Reference
from segplug_builtin.planners.unets import architecture

PLANS_NAME = "segplugCompactPlans"

STEP_COST = 43e6
"""Feature-map values that one training step may make, over all samples of a batch.

The time of a step follows this number closely in 2D and 3D alike: two cores with AVX512-BF16 make 115e6 to 160e6 a
second in bfloat16, forward, backward and update together, so that a step takes 0.3 to 0.4 s.
"""

COMPACT = replace(
    RULES,
    plans_name=PLANS_NAME,
    base_features=RULES.base_features // 2,
    two_dimensional=Reference(STEP_COST / 2, 2, RULES.two_dimensional.max_features // 2),
    three_dimensional=Reference(STEP_COST / 2, 2, RULES.three_dimensional.max_features // 2),
    max_batch_size=32,
)

RECIPE = ComponentRef(
    "short",
    {
        "epochs": 48,
        "iterations_per_epoch": 50,
        "val_iterations_per_epoch": 8,
        "lr": 3e-3,
        "weight_decay": 1e-2,
        "optimizer": {"name": "adamw", "options": {}},
        "schedule": {"name": "one_cycle", "options": {}},
    },
)
"""2400 steps: 16 minutes on two cores with AVX512-BF16, mean Dice 0.876 on fold 0 of Hippocampus (see
bench/hippocampus_fold.py)."""


def plan_compact(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """Plan for little computing power. nnunetv2 can rebuild the networks; it ignores the recipe.

    Raises:
        UsageError: the budget names GPU memory, which has no meaning here.
        DataError: see `plan_unets`.
    """
    if budget.memory_gb is not None:
        raise UsageError("the compact planner plans for computing time, not for memory: leave --memory-gb out")
    name = budget.plans_name or COMPACT.plans_name
    # with another spacing the data are not those of the default plans
    shared = budget.spacing is None
    full_size = plan_default(fingerprint, dataset, replace(budget, plans_name=None if shared else name))
    return replace(
        full_size,
        plans_name=name,
        configurations={n: _compact(c, full_size, dataset) for n, c in full_size.configurations.items()},
        training={"": RECIPE},
    )


def _compact(configuration: Configuration, plan: Plan, dataset: DatasetDescription) -> Configuration:
    """The same images, a smaller network."""
    shape = configuration.median_shape
    volume = plan.configurations.get("3d_fullres", configuration).median_shape if len(shape) == 2 else shape
    task = Task(
        spacing=configuration.spacing,
        median_shape=shape,
        inputs=dataset.num_channels,
        outputs=len(dataset.labels.values),
        dataset_voxels=math.prod(volume) * dataset.num_training,
    )
    network = plan_network(task, COMPACT, COMPACT.memory_gb)
    return replace(
        configuration,
        patch_size=network.patch_size,
        batch_size=network.batch_size,
        architecture=architecture(network),
    )
