"""The shortest training loop there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from segplug import Component, ComponentRef, hookimpl
from segplug.protocols import BatchRequest, Trainer, TrainingTask


@dataclass(frozen=True)
class PlainLoop:
    """Its fields are its settings: `--set trainer.lr=0.1`, `--set trainer.loss=focal`."""

    epochs: int = 10
    iterations_per_epoch: int = 50
    lr: float = 1e-3
    loss: ComponentRef = field(default_factory=lambda: ComponentRef("dice_ce"))
    optimizer: ComponentRef = field(default_factory=lambda: ComponentRef("adamw"))
    augmentation: ComponentRef = field(default_factory=lambda: ComponentRef("nnunet"))

    def train(self, task: TrainingTask) -> None:
        """Train from the beginning and save the weights."""
        loss = task.loss(self.loss, deep_supervision=False)
        make = task.build("optimizers", self.optimizer)
        optimizer = make(task.network.parameters(), lr=self.lr, weight_decay=0.0)
        request = BatchRequest(
            self.augmentation, task.configuration.batch_size, self.epochs, self.iterations_per_epoch, val_iterations=0
        )
        with task.batches(request) as batches:
            for batch in batches:
                optimizer.zero_grad()
                loss(task.network(batch.data), batch.target).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        state = {
            "optimizer_state": optimizer.state_dict(),
            "current_epoch": self.epochs,
            "logging": {},
            "_best_ema": None,
        }
        task.save("final", state, wait=True)


@hookimpl
def segplug_trainers() -> Iterator[Component[Trainer]]:
    yield Component("plain_loop", f"{__name__}:PlainLoop", "a bare loop without validation")
