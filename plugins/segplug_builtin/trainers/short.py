"""A short training for small budgets: the same loop with other settings."""

from __future__ import annotations

from segplug.model import ComponentRef
from segplug_builtin.trainers.nnunet import NNUNetTrainer


def short_trainer() -> NNUNetTrainer:
    """AdamW on one cycle, a few hundred iterations; for machines without a GPU.

    Adam's normalised steps and the short warm-up need far fewer iterations to a usable network than SGD with momentum
    0.99; nnU-Net's schedule is better when there is time for it. The recipe of a plan gives the length.
    """
    return NNUNetTrainer(
        epochs=14,
        iterations_per_epoch=25,
        val_iterations_per_epoch=4,
        lr=3e-3,
        weight_decay=1e-2,
        optimizer=ComponentRef("adamw"),
        schedule=ComponentRef("one_cycle"),
    )
