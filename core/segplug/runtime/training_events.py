"""The event hooks are told when a training starts, what it is, and how it ended."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import segplug
from segplug.kernel import provenance
from segplug.model import ComponentRef, TrainingStart
from segplug.runtime.fold_work import FoldWork
from segplug.runtime.processes import Processes
from segplug.runtime.project import Project
from segplug.runtime.trainer_choice import COMPONENTS


@contextmanager
def telling_of_training(project: Project, work: FoldWork, continued: bool, processes: Processes) -> Iterator[None]:
    """Within the block the training, validation included, is done."""
    project.emit("segplug_training_started", training=_start(project, work, continued, processes))
    error = ""
    try:
        yield
    except BaseException as raised:
        error = str(raised) or type(raised).__name__
        raise
    finally:
        project.emit("segplug_training_finished", folder=work.trained.folder, error=error)


def _start(project: Project, work: FoldWork, continued: bool, processes: Processes) -> TrainingStart:
    import torch

    registry, trainer = project.kernel.registry, work.chosen.trainer
    named = {kind: getattr(trainer, field, None) for field, kind in COMPONENTS.items()}
    used = [work.chosen.provided, registry.find("architectures", work.configuration.architecture.name)]
    used += [registry.find(kind, ref.name) for kind, ref in named.items() if isinstance(ref, ComponentRef)]
    entries = [*(dict(entry) for entry in work.plan.provenance), *provenance.record(used)]
    fingerprint = project.workspace.fingerprint_file(work.dataset.name)
    return TrainingStart(
        folder=work.trained.folder,
        fold=work.trained.fold,
        dataset=work.dataset,
        plan=work.plan,
        configuration=work.configuration.name,
        split=work.split,
        trainer=work.chosen.provided.qualified_name,
        settings=work.chosen.settings,
        epochs=work.epochs,
        epochs_done=work.state.epochs_done,
        continued=continued,
        device=str(work.device),
        precision=work.precision,
        seed=work.seed,
        processes=processes.count,
        fingerprint=hashlib.sha256(fingerprint.read_bytes()).hexdigest() if fingerprint.is_file() else "",
        provenance=tuple({(entry["kind"], entry["name"]): entry for entry in entries}.values()),
        versions={"segplug": segplug.__version__, "torch": torch.__version__, "python": platform.python_version()},
    )
