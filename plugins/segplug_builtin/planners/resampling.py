"""nnU-Net's planners that differ in how images are resampled: by torch, or not at all.

Networks, patches and batches are those of the planner that each one builds on; its images are its own.
"""

from __future__ import annotations

from dataclasses import replace

from segplug.model import Budget, ComponentRef, DatasetDescription, Fingerprint, Plan
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


def plan_default_torch(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """Plain U-Nets, torch resampling. Equal to what nnunetv2 2.8.1 plans; raises as `plan_unets`."""
    return plan_unets(fingerprint, dataset, budget, DEFAULT_TORCH)


def plan_resenc_l_torch(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """ResEnc L, torch resampling. Equal to what nnunetv2 2.8.1 plans; raises as `plan_unets`."""
    return plan_unets(fingerprint, dataset, budget, L_TORCH)


def plan_resenc_l_torch_slices(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """The same, slices that are far apart on their own. Equal to nnunetv2 2.8.1's plan; raises as `plan_unets`."""
    return plan_unets(fingerprint, dataset, budget, L_TORCH_SLICES)


def plan_resenc_l_none(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """ResEnc L, images as they are. Equal to what nnunetv2 2.8.1 plans; raises as `plan_unets`.

    Patches are chosen as if the images had the target spacing, which they need not: for data sets of one spacing. Its
    3d_lowres sees the images at full resolution.
    """
    return plan_unets(fingerprint, dataset, budget, L_NONE)
