"""Trainings that one process does and that several do together; run as a program by test_together.py.

    python together.py FOLDER RANK COUNT PORT,PORT,...

trains every one of `TRAININGS`, each with a port of its own, into FOLDER/<name>; `FOLDER/<name> RANK.json` lists the
events.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from segplug.kernel import Kernel, hookimpl
from segplug.runtime.processes import ALONE, Processes
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.train import train

NAME, PLANS, CONFIGURATION = "Dataset601_Phantom", "tinyPlans", "3d_fullres"
EXAMPLES = Path(__file__).parents[2] / "core" / "segplug" / "testing" / "examples"
SETTINGS = (
    "trainer.optimizer=sgd",
    "trainer.schedule=constant",
    "trainer.lr=0.03",
    "trainer.val_iterations_per_epoch=2",
)


@dataclass(frozen=True)
class Training:
    """What is trained: the data of a fixture of conftest.py, and settings beside those above."""

    data: str = "labels"
    settings: tuple[str, ...] = ()
    trainer: str | None = None
    epochs: int = 1
    plugins: tuple[str, ...] = ()


TRAININGS = {
    "labels": Training(),
    "batch Dice, three samples, weighted classes": Training(
        settings=("trainer.loss.batch_dice=true", "trainer.batch_size=3", "trainer.loss.class_weights=[0.5, 1, 3]")
    ),
    "steps of two batches, averaged weights": Training(
        settings=("trainer.accumulate=2", "trainer.weight_averaging=0.9", "trainer.batch_size=3")
    ),
    "batch norm": Training(settings=("trainer.norm=batch", "trainer.batch_size=3")),
    "no deep supervision, hardest voxels, frozen encoder": Training(
        settings=("trainer.deep_supervision=false", "trainer.loss=dice_topk", "trainer.freeze=encoder")
    ),
    "sparse labels": Training("sparse", ("trainer.batch_size=3", "trainer.lr_factors.decoder=0.5")),
    "sparse labels, batch Dice": Training(
        "sparse", ("trainer.loss.batch_dice=true", "trainer.loss.class_weights=[1, 2, 3]")
    ),
    "sparse labels, hardest voxels": Training("sparse", ("trainer.loss=topk",)),
    "sparse regions": Training("sparse regions", ("trainer.batch_size=3",)),
    "sparse regions, batch Dice": Training("sparse regions", ("trainer.loss.batch_dice=true",)),
    "a stranger's loss": Training("sparse", ("trainer.loss=focal", "trainer.batch_size=3"), plugins=("losses",)),
    "a stranger's trainer and loss": Training(
        settings=("trainer.loss=focal", "trainer.optimizer=sgd", "trainer.iterations_per_epoch=3"),
        trainer="plain_loop",
        plugins=("losses", "trainers"),
    ),
    "early stopping": Training(settings=("trainer.patience=1", "trainer.lr=1e-9"), epochs=6),
}


class Told:
    """Notes events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @hookimpl
    def segplug_epoch_finished(self, report) -> None:
        self.events.append(f"epoch {report.epoch}")

    @hookimpl
    def segplug_checkpoint_written(self, path) -> None:
        self.events.append(path.stem)

    @hookimpl
    def segplug_case_predicted(self, case, prediction, path) -> None:
        assert path.is_file()
        self.events.append(f"{case} {int(prediction.labels.array.sum())}")

    @hookimpl
    def segplug_stage_started(self, stage) -> None:
        self.events.append(stage)


def load(plugin: str):
    """An example of the hook reference, as a module that the registry can import from."""
    from importlib import import_module

    sys.path.insert(0, str(EXAMPLES))
    try:
        return import_module(f"example_{plugin}")
    finally:
        sys.path.remove(str(EXAMPLES))


def run(training: Training, data: Path, results: Path, processes: Processes = ALONE) -> list[str]:
    """Train; returns the events."""
    workspace = Workspace(data / "raw", data / "preprocessed", results)
    told = Told()
    with Project(workspace, Kernel(discover=False), workers=0) as project:
        project.kernel.register(told, "told")
        for plugin in training.plugins:
            project.kernel.register(load(plugin), plugin)
        general = SETTINGS if training.trainer is None else ()
        train(
            project,
            NAME,
            CONFIGURATION,
            1,
            plans_name=PLANS,
            trainer=training.trainer,
            overrides=[*general, *training.settings],
            epochs=training.epochs,
            device="cpu",
            precision="fp32",
            processes=processes,
        )
    return told.events


def fold_of(results: Path) -> Path:
    (folder,) = results.glob(f"{NAME}/*/fold_1")
    return folder


if __name__ == "__main__":
    folder, rank, count, ports = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(",")
    os.environ["MASTER_ADDR"] = "localhost"
    for (name, training), port in zip(TRAININGS.items(), ports, strict=True):
        os.environ["MASTER_PORT"] = port
        events = run(training, folder / f"data {training.data}", folder / name, Processes(rank, count, rank, count))
        (folder / f"{name} {rank}.json").write_text(json.dumps(events))
