"""nnU-Net's planners that differ in how images are resampled: by torch, or not at all.

Networks, patches and batches are those of the planner that each one builds on; its images are its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from segplug.model import ComponentRef
from segplug_builtin.planners.default import RULES
from segplug_builtin.planners.residual_encoder import L
from segplug_builtin.planners.rules import Resampling, Rules, resampling_by_torch
from segplug_builtin.planners.unets import plan_unets

TOGETHER = resampling_by_torch({"force_separate_z": False, "memefficient_seg_resampling": False})
"""All axes linearly, however far apart slices are."""

SLICES_APART = resampling_by_torch(
    {"force_separate_z": None, "memefficient_seg_resampling": False, "separate_z_anisotropy_threshold": 3}
)
"""Linearly within slices and to the nearest of them where these are far apart."""

NONE = ComponentRef("no_resampling_hack")


def _changed(rules: Rules, ending: str, name: str, resampling: Resampling) -> Rules:
    plans_name = f"{rules.plans_name}_{ending}"
    return replace(rules, name=name, plans_name=plans_name, resampling=resampling, shared_data=())


DEFAULT_TORCH = _changed(RULES, "torchres", "nnUNetPlanner_torchres", TOGETHER)
L_TORCH = _changed(L, "torchres", "nnUNetPlannerResEncL_torchres", TOGETHER)
L_TORCH_SLICES = _changed(L, "torchres_sepz", "nnUNetPlannerResEncL_torchres_sepz", SLICES_APART)
L_NONE = _changed(L, "noResampling", "nnUNetPlannerResEncL_noResampling", Resampling(NONE, NONE, NONE))

plan_default_torch = partial(plan_unets, rules=DEFAULT_TORCH)
plan_resenc_l_torch = partial(plan_unets, rules=L_TORCH)
plan_resenc_l_torch_slices = partial(plan_unets, rules=L_TORCH_SLICES)
plan_resenc_l_none = partial(plan_unets, rules=L_NONE)
"""Each equal, entry by entry, to what nnunetv2 2.8.1 plans.

Without resampling, patches are chosen as if the images had the target spacing, which they need not: it is for data sets
of one spacing. Its 3d_lowres sees the images at full resolution.
"""
