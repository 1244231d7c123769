"""Planners. Another planner may call one of these and change what comes back with `dataclasses.replace`."""

from segplug_builtin.planners.compact import plan_compact as plan_compact
from segplug_builtin.planners.default import plan_default as plan_default
from segplug_builtin.planners.resampling import plan_default_torch as plan_default_torch
from segplug_builtin.planners.resampling import plan_resenc_l_none as plan_resenc_l_none
from segplug_builtin.planners.resampling import plan_resenc_l_torch as plan_resenc_l_torch
from segplug_builtin.planners.resampling import plan_resenc_l_torch_slices as plan_resenc_l_torch_slices
from segplug_builtin.planners.residual_encoder import plan_resenc as plan_resenc
from segplug_builtin.planners.residual_encoder import plan_resenc_l as plan_resenc_l
from segplug_builtin.planners.residual_encoder import plan_resenc_m as plan_resenc_m
from segplug_builtin.planners.residual_encoder import plan_resenc_xl as plan_resenc_xl
