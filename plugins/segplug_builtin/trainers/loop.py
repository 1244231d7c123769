"""The training loop of the built-in trainers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segplug.errors import SegplugError
from segplug.model import EpochReport
from segplug.protocols import Batch, BatchRequest, TrainingTask
from segplug.runtime.compute_settings import reproducible_kernels
from segplug.runtime.randomness import torch_seed
from segplug.runtime.training_targets import count_overlap
from segplug_builtin.trainers import optimizer_state
from segplug_builtin.trainers.compiling import Compiler
from segplug_builtin.trainers.layers import LR_FACTOR, freeze, parameter_groups, set_training
from segplug_builtin.trainers.weight_average import WeightAverage

if TYPE_CHECKING:
    from segplug_builtin.trainers.nnunet import NNUNetTrainer

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
EMA_DECAY = 0.9
"""Weight of the past in the moving average of the pseudo-Dice that decides the best checkpoint (nnU-Net's rule)."""


TRAINED_WEIGHTS = "segplug_trained_weights"
"""Key of checkpoints whose `network_weights` are an average: the weights to go on with."""


class TrainingLoop:
    """One training: the settings of a trainer applied to a task.

    Nothing waits for the device within an epoch. All randomness of an epoch comes from the batches and from torch's
    generator, seeded anew for each epoch, so that a resumed training is the uninterrupted one.
    """

    def __init__(self, settings: NNUNetTrainer, task: TrainingTask) -> None:
        self._settings = settings
        self._task = task
        self._loss = task.loss(settings.loss, settings.deep_supervision)
        settings.check_network(task.network)
        freeze(task.network, settings.freeze)
        self._parameters = [p for p in task.network.parameters() if p.requires_grad]
        groups = parameter_groups(task.network, settings.lr_factors)
        build = task.build("optimizers", settings.optimizer)
        self._build_optimizer = partial(build, lr=settings.lr, weight_decay=settings.weight_decay)
        self._optimizer = self._build_optimizer(groups)
        self._schedule = task.build("schedules", settings.schedule)
        self._scaler = torch.amp.GradScaler(task.device.type) if task.precision == "fp16" else None
        decay = settings.weight_averaging
        self._average = None if decay is None else WeightAverage(task.network, decay)
        self._compiler = Compiler(
            task.network,
            getattr(self._loss, "module", None),
            task.device,
            compile=settings.compile,
            graphs=settings.cuda_graphs,
            steps=settings.epochs * settings.iterations_per_epoch,
            accumulate=settings.accumulate,
            log=task.log,
        )
        self._best: float | None = None
        self._emas: list[float] = []

    def run(self) -> None:
        """Train and save `latest` after every epoch, `best` when the moving average rises, `final` at the end."""
        settings, task = self._settings, self._task
        first = self._restore()
        request = BatchRequest(
            augmentation=settings.augmentation,
            batch_size=settings.batch_size or task.configuration.batch_size,
            epochs=settings.epochs,
            iterations=settings.iterations_per_epoch * settings.accumulate,
            val_iterations=settings.val_iterations_per_epoch,
            first_epoch=first,
            oversample_foreground=self._oversampled(),
            probabilistic_oversampling=bool(settings.probabilistic_oversampling),
        )
        done = first
        if first < settings.epochs and not self._stalled():
            with task.batches(request) as batches, reproducible_kernels(task.device, wanted=settings.deterministic):
                while done < settings.epochs and not self._stalled():
                    report = self._epoch(done, batches)
                    done += 1
                    task.report(report)
                    self._save(report, done)
        with self._saving(done) as state:
            if done < settings.epochs:
                task.log(f"ended after {done} epochs: no better pseudo-Dice in {settings.patience} of them")
                state["stopped_early"] = settings.patience
            task.save("final", state, wait=True)

    def _save(self, report: EpochReport, epochs_done: int) -> None:
        with self._saving(epochs_done) as state:
            if self._improved(report):
                state["_best_ema"] = self._best
                self._task.log(f"New best moving average of the pseudo-Dice: {report.ema_dice:.4f}")
                self._task.save("best", state)
            self._task.save("latest", state)

    def _epoch(self, epoch: int, batches: Iterator[Batch]) -> EpochReport:
        settings, task = self._settings, self._task
        started = time.perf_counter()
        # one process alone and the first of several draw the same; samples of the others do not drop the same features
        torch.manual_seed(torch_seed(task.seed, "epoch", task.fold, epoch, *filter(None, (task.rank,))))
        set_training(task.network, settings.freeze)
        losses = []
        for iteration in range(settings.iterations_per_epoch):
            self._set_learning_rate(epoch, iteration)
            losses.append(self._train_step(islice(batches, settings.accumulate)))
            if self._average is not None:
                self._average.update(epoch * settings.iterations_per_epoch + iteration)
        task.network.eval()
        val_losses, overlaps = [], []
        with self._averaged():
            for batch in islice(batches, settings.val_iterations_per_epoch):
                loss, overlap = self._validation_step(batch)
                val_losses.append(loss)
                overlaps.append(overlap)
        dice = pseudo_dice(task.total(torch.stack(overlaps).sum(0))) if overlaps else ()
        present = [d for d in dice if not math.isnan(d)]
        mean_dice = sum(present) / len(present) if present else math.nan
        self._emas.append(moving_average(self._emas[-1] if self._emas else math.nan, mean_dice))
        return EpochReport(
            epoch=epoch,
            epochs=settings.epochs,
            train_loss=self._mean_loss(losses, epoch),
            val_loss=float(torch.stack(val_losses).mean()) if val_losses else math.nan,
            dice=dice,
            mean_dice=mean_dice,
            ema_dice=self._emas[-1],
            learning_rate=self._learning_rate(epoch, 0),
            seconds=time.perf_counter() - started,
        )

    def _train_step(self, batches: Iterable[Batch]) -> Tensor:
        """One step of the optimiser with the mean gradient of some batches; returns their mean loss."""
        self._optimizer.zero_grad(set_to_none=True)
        self._compiler.begin_step()
        losses = []
        for number, batch in enumerate(batches, start=1):
            if self._compiler.wanted:
                self._try_compiled(batch)
            with self._summing_up(number < self._settings.accumulate):
                loss = self._loss(self._output(batch), batch.target) / self._settings.accumulate
                scaled = loss if self._scaler is None else self._scaler.scale(loss)
                scaled.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        clip = self._settings.gradient_clip
        if clip is not None:
            if self._scaler is not None:
                self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._parameters, clip)
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        return torch.stack(losses).sum()

    @torch.no_grad()
    def _validation_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss, and true positives, false positives and false negatives per class (3, classes)."""
        self._compiler.begin_step()
        output = self._output(batch)
        full = output if isinstance(output, Tensor) else output[0]
        return self._loss(output, batch.target), count_overlap(full, batch.target, self._task.dataset.labels)

    def _output(self, batch: Batch) -> Any:
        with self._autocast():
            return self._task.network(batch.data)

    def _try_compiled(self, batch: Batch) -> None:
        """Compile what is to be, and see that it does what it should, on a batch that is trained with afterwards."""

        def train() -> Tensor:
            loss = self._loss(self._output(batch), batch.target)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        def validate() -> Tensor:
            with torch.no_grad():
                return self._loss(self._output(batch), batch.target)

        validated = self._settings.val_iterations_per_epoch > 0
        self._compiler.try_out(batch.data[:, 0].numel(), train, validate if validated else None)

    def _summing_up(self, more_to_come: bool) -> AbstractContextManager[Any]:
        """Gradients of several processes are put together once a step, not for every batch of it."""
        no_sync = getattr(self._task.network, "no_sync", None)
        return no_sync() if more_to_come and no_sync is not None else nullcontext()

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = AUTOCAST.get(self._task.precision)
        return torch.autocast(self._task.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)

    def _learning_rate(self, epoch: int, iteration: int) -> float:
        settings = self._settings
        place = {"epoch": epoch, "epochs": settings.epochs}
        return float(
            self._schedule(settings.lr, **place, iteration=iteration, iterations=settings.iterations_per_epoch)
        )

    def _set_learning_rate(self, epoch: int, iteration: int) -> None:
        value = self._learning_rate(epoch, iteration)
        for group in self._optimizer.param_groups:
            group["lr"] = value * group.get(LR_FACTOR, 1.0)

    def _mean_loss(self, losses: list[Tensor], epoch: int) -> float:
        values = torch.stack(losses).cpu()
        finite = values[values.isfinite()]
        # with fp16 the scaler leaves out steps that overflow; elsewhere one such step has spoilt the weights
        if len(finite) == 0 or (len(finite) < len(values) and self._scaler is None):
            found = float(values[~values.isfinite()][0])
            raise SegplugError(
                f"{self._task.folder}: the loss became {found} in epoch {epoch + 1}. checkpoint_latest.pth holds "
                f"the weights before that epoch. Lower trainer.lr (now {self._settings.lr:g}), or train with "
                "--precision fp32"
            )
        return float(finite.mean())

    def _improved(self, report: EpochReport) -> bool:
        better = not math.isnan(report.ema_dice) and (self._best is None or report.ema_dice > self._best)
        if better:
            self._best = report.ema_dice
        return better

    def _stalled(self) -> bool:
        """Whether the pseudo-Dice has not got better for as long as the settings allow."""
        values = [-math.inf if math.isnan(value) else value for value in self._emas]
        patience = self._settings.patience
        return patience is not None and bool(values) and len(values) - 1 - values.index(max(values)) >= patience

    def _oversampled(self) -> float:
        settings = self._settings
        if settings.probabilistic_oversampling != "as_fixed":
            return settings.oversample_foreground
        batch_size = settings.batch_size or self._task.configuration.batch_size
        return (batch_size - round(batch_size * (1 - settings.oversample_foreground))) / batch_size

    @contextmanager
    def _averaged(self) -> Iterator[dict[str, Any]]:
        """While the network has its averaged weights, if they are averaged: what has to be saved beside them."""
        if self._average is None:
            yield {}
            return
        with self._average.in_network() as trained:
            yield {TRAINED_WEIGHTS: trained}

    @contextmanager
    def _saving(self, epochs_done: int) -> Iterator[dict[str, Any]]:
        """The state to save, while the network has the weights to save."""
        with self._averaged() as beside:
            yield {
                "optimizer_state": self._optimizer.state_dict(),
                "grad_scaler_state": None if self._scaler is None else self._scaler.state_dict(),
                "current_epoch": epochs_done,
                "_best_ema": self._best,
                **beside,
            }

    def _restore(self) -> int:
        """Take up what was saved last; returns the first epoch to do."""
        saved = self._task.saved_state()
        if saved is None:
            return 0
        if not optimizer_state.restore(self._optimizer, saved["optimizer_state"], self._build_optimizer):
            self._task.log("the optimiser begins anew: its state was that of another one, or of other weights")
        if self._scaler is not None and saved.get("grad_scaler_state") is not None:
            self._scaler.load_state_dict(saved["grad_scaler_state"])
        if TRAINED_WEIGHTS in saved or self._average is not None:
            # averaging may have been begun or ended by a setting of this continuation
            average = self._average or WeightAverage(self._task.network, 0.0)
            average.restore(saved.get(TRAINED_WEIGHTS))
        self._best = saved["_best_ema"]
        self._emas = [float(value) for value in saved["logging"]["ema_fg_dice"]]
        return int(saved["current_epoch"])


def pseudo_dice(overlap: Tensor) -> tuple[float, ...]:
    """Dice per class from counts (3, classes); NaN for a class that is neither there nor predicted."""
    tp, fp, fn = overlap.cpu().double()
    return tuple((2 * tp / (2 * tp + fp + fn)).tolist())


def moving_average(before: float, value: float) -> float:
    """0.9/0.1 moving average that begins with the first value; an epoch without a value leaves it."""
    if math.isnan(value):
        return before
    return value if math.isnan(before) else EMA_DECAY * before + (1 - EMA_DECAY) * value
