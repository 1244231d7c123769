"""nnU-Net's planners of residual-encoder U-Nets (Isensee et al. 2024, "nnU-Net Revisited"), for 8, 24 and 40 GB."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from segplug_builtin.planners.rules import Reference, Rules
from segplug_builtin.planners.unets import plan_unets


def _rules(size: str, memory_gb: float, cost_3d: float, cost_2d: float) -> Rules:
    return Rules(
        name=f"nnUNetPlannerResEnc{size}",
        plans_name=f"nnUNetResEncUNet{size}Plans",
        residual=True,
        two_dimensional=Reference(cost=cost_2d, batch_size=12, max_features=512),
        three_dimensional=Reference(cost=cost_3d, batch_size=2, max_features=320),
        memory_gb=memory_gb,
        encoder_blocks=(1, 3, 4, 6),
        decoder_convolutions=1,
        dataset_share=1.0,
        weigh_minimum_batch=False,
        shared_data=("2d", "3d_fullres"),
    )


M = _rules("M", 8, 680e6, 135e6)
L = _rules("L", 24, 2.1e9, 380e6)
XL = _rules("XL", 40, 3.6e9, 560e6)

UNSIZED = replace(M, name="ResEncUNetPlanner", plans_name="nnUNetResEncUNetPlans", dataset_share=0.05)
"""What the sizes came from: M with the default planner's limit of the batch."""

plan_resenc = partial(plan_unets, rules=UNSIZED)
plan_resenc_m = partial(plan_unets, rules=M)
plan_resenc_l = partial(plan_unets, rules=L)
plan_resenc_xl = partial(plan_unets, rules=XL)
"""Each equal, entry by entry, to what nnunetv2 2.8.1 plans."""
