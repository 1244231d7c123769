"""Planners. Another planner may call one of these and change what comes back with `dataclasses.replace`."""

from segplug_builtin.planners.compact import plan_compact as plan_compact
from segplug_builtin.planners.default import plan_default as plan_default
from segplug_builtin.planners.residual_encoder import plan_resenc_l as plan_resenc_l
from segplug_builtin.planners.residual_encoder import plan_resenc_m as plan_resenc_m
from segplug_builtin.planners.residual_encoder import plan_resenc_xl as plan_resenc_xl
