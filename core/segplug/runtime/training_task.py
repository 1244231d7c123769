"""One fold to train, as a trainer sees it: `segplug.protocols.TrainingTask`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any

from segplug.errors import UsageError
from segplug.kernel import Provided, provenance
from segplug.model import ComponentRef, Configuration, DatasetDescription, EpochReport, Plan, Split
from segplug.protocols import AugmentationContext, Batch, BatchRequest, Store
from segplug.protocols.trainer import Checkpoint as Which
from segplug.runtime.batch_loader import open_batches
from segplug.runtime.checkpoint import Checkpoint, checkpoint_content, load_weights
from segplug.runtime.checkpoint_writer import CheckpointWriter
from segplug.runtime.data_parallel import DataParallel, gathered
from segplug.runtime.deep_supervision import SupervisedLoss
from segplug.runtime.patch_sampling import annotated_key
from segplug.runtime.plan_codec import encode_plan
from segplug.runtime.processes import ALONE, Processes
from segplug.runtime.project import Project
from segplug.runtime.stage_predictions import StagePredictions
from segplug.runtime.training_log import EpochHistory, ProgressPlot, TrainingLog

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass
class FoldTraining:
    """Implements `TrainingTask`; used as a context manager it ends with everything on disk.

    Args:
        project: registry, events and the number of loader workers.
        store: preprocessed cases.
        trainer_name: nnU-Net's name of the trainer, for checkpoints.
        used: components that made what is given here (trainer, architecture, ...), for the provenance of checkpoints.
        extension: what the `segplug` key of checkpoints says beside provenance (trainer, its settings, seed, ...).
        previous: in a cascade, what the stage before predicted for the fold's cases.
        saved: the checkpoint that this run continues, or None; its weights are put into the network.
        training_log: where lines go; None writes no file.
        processes: that train together; only the first one writes and tells.
    """

    project: Project
    plan: Plan
    configuration: Configuration
    dataset: DatasetDescription
    fold: int | str
    split: Split
    folder: Path
    network: nn.Module
    device: torch.device
    precision: str
    seed: int
    store: Store
    trainer_name: str
    used: Sequence[Provided] = ()
    extension: Mapping[str, Any] = field(default_factory=dict)
    previous: StagePredictions | None = None
    saved: Checkpoint | None = None
    training_log: TrainingLog | None = None
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        self._sizes: list[int] | None = None
        self._used = list(self.used)
        self._writer = CheckpointWriter()
        self._written: SimpleQueue[tuple[Path, int]] = SimpleQueue()
        self._history = EpochHistory(self.saved.state["logging"] if self.saved else None)
        self._plot = ProgressPlot(self.folder / "progress.png")
        self._mirror_axes: tuple[int, ...] = self.saved.mirror_axes if self.saved else ()
        if self.saved is not None:
            load_weights(self.network, self.saved.weights, str(self.saved.path))
        if self.processes.several:
            self.network = DataParallel(self.network, self.device)

    # --- what a trainer asks for -----------------------------------------------------------------------------------

    def build(self, kind: str, ref: ComponentRef, **offered: Any) -> Any:
        """Make another component."""
        registry = self.project.kernel.registry
        self._used.append(registry.resolve(kind, ref.name))
        return registry.build(kind, ref, **offered)

    def loss(self, ref: ComponentRef, deep_supervision: bool) -> Callable[[Any, Tensor], Tensor]:
        """The loss with deep supervision, regions and ignore label taken care of."""
        from torch import nn

        labels = self.dataset.labels
        built = self.build(
            "losses",
            ref,
            batch_dice=self.configuration.batch_dice,
            regions=labels.has_regions,
            classes=labels.output_channels,
        )
        if isinstance(built, nn.Module):
            built = built.to(self.device)
        supervised = SupervisedLoss(
            built,
            labels,
            name=self.project.kernel.registry.resolve("losses", ref.name).qualified_name,
            deep_supervision=deep_supervision,
            gather=self._gather if self.processes.several else None,
            processes=self.processes.count,
        )
        if isinstance(self.network, DataParallel):
            self.network.used_outputs = lambda count: [weight > 0 for weight in supervised.weights(count)]
        return supervised

    @contextmanager
    def batches(self, request: BatchRequest) -> Iterator[Iterator[Batch]]:
        """Loaded and augmented batches on the device, in the order of the request; each process gets its part."""
        labels = self.dataset.labels
        self.processes.require_samples(request.batch_size)
        self._sizes = self.processes.sizes(request.batch_size)
        context = AugmentationContext(
            patch_size=self.configuration.patch_size,
            channels=self.dataset.num_channels,
            use_mask_for_norm=self.configuration.use_mask_for_norm,
            labels=labels.foreground_labels if self.previous is not None else (),
        )
        augmentation = self.build("augmentations", request.augmentation, context=context)
        validation = self.build("augmentations", request.augmentation, context=replace(context, validation=True))
        self._mirror_axes = tuple(getattr(augmentation, "mirror_axes", ()))
        opened: AbstractContextManager[Iterator[Batch]] = open_batches(
            self.store,
            self.split.train,
            self.split.val,
            request,
            augmentation=augmentation,
            validation=validation,
            patch_size=self.configuration.patch_size,
            seed=self.seed,
            fold=self.fold,
            workers=self.project.workers,
            device=self.device,
            annotated=annotated_key(labels.all_labels) if labels.ignore_label is not None else None,
            apply_augmentation=self.device.type != "cuda",
            previous=self.previous,
            previous_labels=context.labels,
            samples=self.processes.share(request.batch_size),
        )
        with opened as batches:
            # an augmentation may leave -1 (outside): background, for the loss
            yield (replace(batch, target=batch.target.clamp(min=0)) for batch in batches)

    def saved_state(self) -> Mapping[str, Any] | None:
        """State of the checkpoint that this run continues."""
        return None if self.saved is None else self.saved.state

    def save(self, which: Which, state: Mapping[str, Any], *, wait: bool = False) -> None:
        """Write a checkpoint, whole or not at all, in the background unless `wait`.

        Raises:
            CheckpointError: this or an earlier one could not be written.
        """
        if not self.processes.first:
            return
        path, epoch = self.folder / f"checkpoint_{which}.pth", int(state["current_epoch"])
        content = checkpoint_content(
            self.network,
            plans=encode_plan(self.plan),
            configuration=self.configuration.name,
            fold=self.fold,
            dataset_json=self.dataset.raw,
            trainer=self.trainer_name,
            mirror_axes=self._mirror_axes,
            state={**state, "logging": self._history.as_logging()},
            extension={**self.extension, "provenance": self._provenance()},
        )
        self._writer.submit(path, content, lambda: self._written.put((path, epoch)))
        if wait:
            self._writer.wait()
        self._tell_written()

    def report(self, report: EpochReport) -> None:
        """Tell the event hooks, the log and progress.png of a finished epoch."""
        if not self.processes.first:
            return
        self._history.add(report)
        dice = ", ".join(f"{value:.4f}" for value in report.dice)
        self._tell_written()
        self.log(
            f"epoch {report.epoch}: train_loss {report.train_loss:.4f}, val_loss {report.val_loss:.4f}, "
            f"pseudo Dice [{dice}], learning rate {report.learning_rate:.6g}, {report.seconds:.2f} s"
        )
        self._plot.update(self._history)
        self.project.emit("segplug_epoch_finished", folder=self.folder, report=report)
        self.project.progress("train", f"epoch {report.epoch + 1}", report.epoch + 1, report.epochs)

    def log(self, text: str) -> None:
        """A line for the training log."""
        if self.training_log is not None:
            self.training_log.line(text)

    @property
    def rank(self) -> int:
        """Number of this process among those that train together."""
        return self.processes.rank

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        return self.processes.total(values)

    def _gather(self, own: Tensor) -> Tensor:
        if self._sizes is None or len(own) != self._sizes[self.rank]:
            expected = "none before batches were asked for" if self._sizes is None else f"{self._sizes[self.rank]}"
            raise UsageError(f"a loss of {len(own)} samples in process {self.rank}; expected {expected}")
        return gathered(own, self.rank, self._sizes)

    # --- end -------------------------------------------------------------------------------------------------------

    def _tell_written(self) -> None:
        """Tell the event hooks of checkpoints on disk; from this thread, for plugins need not be safe for threads."""
        while not self._written.empty():
            path, epoch = self._written.get()
            self.project.emit("segplug_checkpoint_written", path=path, epoch=epoch)

    def _provenance(self) -> list[dict[str, str]]:
        """Components of the plan and of this training, each once."""
        entries = [*(dict(entry) for entry in self.plan.provenance), *provenance.record(self._used)]
        return list({(entry["kind"], entry["name"]): entry for entry in entries}.values())

    def __enter__(self) -> FoldTraining:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self.processes.first:
                self._plot.finish(self._history)
        finally:
            self._writer.close()
        self._tell_written()
