"""Every hook of segplug.

Provider hooks take no argument and return components; they are called once, when a run starts. Choice hooks stop at
the first answer that is not None and are asked only where neither the user nor the plan named a component; built-in
answers come last. Event hooks report what happened: their results are ignored, and an event hook that raises is
reported and never stops the run. No hook is called within the per-iteration loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.kernel.component import Component, hookspec
from segplug.kernel.kinds import KINDS, Kind

if TYPE_CHECKING:
    from segplug.model import EpochReport, Plan, Prediction


class Providers:
    """One provider hook for each row of the table of kinds."""


def _provider(kind: Kind) -> Callable[[], Iterable[Component[Any]]]:
    def provide() -> Iterable[Component[Any]]:  # type: ignore[empty-body]
        ...

    provide.__name__ = provide.__qualname__ = kind.hook
    provide.__annotations__ = {"return": f"Iterable[Component[{kind.protocol}]]"}
    provide.__doc__ = f"{kind.name.capitalize()}: {kind.summary}."
    return hookspec(provide)


for _kind in KINDS.values():
    setattr(Providers, _kind.hook, staticmethod(_provider(_kind)))


@hookspec(firstresult=True)
def segplug_choose_reader(path: Path) -> str | None:
    """Name the reader for this file, or None. Asked once per data set, with the first image of its first case."""


@hookspec(firstresult=True)
def segplug_choose_writer(path: Path) -> str | None:
    """Name the writer for a file of this name, or None. Asked when the reader in use has no writer of its name."""


@hookspec(firstresult=True)
def segplug_choose_normalizer(channel_name: str) -> str | None:
    """Name the normalizer for a channel of this name, or None. Asked by planners, once per channel."""


@hookspec(firstresult=True)
def segplug_choose_trainer(plan: Plan, configuration: str) -> str | None:
    """Name the trainer for a configuration, or None. Asked when neither plan nor user names one."""


@hookspec
def segplug_stage_started(stage: str, subject: str, total: int) -> None:
    """A stage begins. `subject` is its data set or folder, `total` its number of steps (cases, epochs; 0: unknown)."""


@hookspec
def segplug_stage_progress(stage: str, item: str, done: int, total: int) -> None:
    """One step of a stage (a case, an epoch) is done: `done` of `total`."""


@hookspec
def segplug_stage_finished(stage: str, subject: str, seconds: float, error: str) -> None:
    """A stage ended after `seconds`; `error` is empty if it succeeded, else what went wrong."""


@hookspec
def segplug_epoch_finished(folder: Path, report: EpochReport) -> None:
    """An epoch of the training in `folder` ended with these losses, Dice values and learning rate."""


@hookspec
def segplug_checkpoint_written(path: Path, epoch: int) -> None:
    """A checkpoint is on disk, whole, at `path`; `epoch` epochs are in it."""


@hookspec
def segplug_case_predicted(case: str, prediction: Prediction, path: Path | None) -> None:
    """A case was predicted; `path` is the file written, None where the prediction stayed in memory."""
