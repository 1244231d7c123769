"""What a training leaves to read: the log file, nnU-Net's `logging` of every epoch, and progress.png."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from segplug.model import EpochReport
from segplug.runtime.files import replacing

SERIES = (
    "mean_fg_dice",
    "ema_fg_dice",
    "dice_per_class_or_region",
    "train_losses",
    "val_losses",
    "lrs",
    "epoch_start_timestamps",
    "epoch_end_timestamps",
)
"""Keys of nnU-Net's `logging`; each holds one entry per finished epoch."""

SHARE_FOR_PLOTS = 0.01
"""Share of the time that drawing may take; between two plots of t seconds lie at least t / share."""


class EpochHistory:
    """One entry per finished epoch, in the form of nnU-Net's checkpoints: plain numbers and lists."""

    def __init__(self, saved: Mapping[str, Any] | None = None) -> None:
        self._series = {name: list((saved or {}).get(name, ())) for name in SERIES}

    def __len__(self) -> int:
        return min(map(len, self._series.values()))

    def add(self, report: EpochReport) -> None:
        """Note an epoch that has just ended."""
        now = time.time()
        entry = {
            "mean_fg_dice": report.mean_dice,
            "ema_fg_dice": report.ema_dice,
            "dice_per_class_or_region": list(report.dice),
            "train_losses": report.train_loss,
            "val_losses": report.val_loss,
            "lrs": report.learning_rate,
            "epoch_start_timestamps": now - report.seconds,
            "epoch_end_timestamps": now,
        }
        for name, value in entry.items():
            self._series[name].append(value)

    def as_logging(self) -> dict[str, list[Any]]:
        """The `logging` of a checkpoint; a copy."""
        return {name: list(values) for name, values in self._series.items()}


class TrainingLog:
    """`training_log_<date>.txt`: a line with its time for everything that happens."""

    def __init__(self, folder: Path) -> None:
        now = datetime.now()
        stamp = f"{now.year}_{now.month}_{now.day}_{now:%H_%M_%S}"
        self.path = folder / f"training_log_{stamp}.txt"
        self._lock = threading.Lock()

    def line(self, text: str) -> None:
        """Append a line, at once: a training that is killed leaves its log."""
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S.%f}: {text}\n")


class ProgressPlot:
    """Draws progress.png in the background, never two at a time and only as often as costs next to nothing."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="progress plot")
        self._drawing: Future[float] | None = None
        self._not_before = 0.0

    def update(self, history: EpochHistory) -> None:
        """Draw soon, unless a plot is being drawn or has just been."""
        if self._drawing is not None:
            if not self._drawing.done():
                return
            self._not_before = time.monotonic() + self._seconds(self._drawing) / SHARE_FOR_PLOTS
            self._drawing = None
        if time.monotonic() >= self._not_before:
            self._drawing = self._thread.submit(_timed_plot, self._file, history.as_logging())

    def finish(self, history: EpochHistory) -> None:
        """Draw the last state and end the thread."""
        if len(history):
            self._seconds(self._thread.submit(_timed_plot, self._file, history.as_logging()))
        self._thread.shutdown()

    def _seconds(self, drawing: Future[float]) -> float:
        try:
            return drawing.result()
        except Exception as error:  # a picture must never stop a training
            warnings.warn(
                f"{self._file} cannot be drawn: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2
            )
            return 1.0


def _timed_plot(file: Path, logging: Mapping[str, list[Any]]) -> float:
    start = time.monotonic()
    plot_progress(file, logging)
    return time.monotonic() - start


def plot_progress(file: Path, logging: Mapping[str, list[Any]]) -> None:
    """Draw losses and pseudo-Dice, seconds per epoch, and learning rate.

    Args:
        logging: see `EpochHistory.as_logging`.
    """
    # the object interface alone: pyplot holds global state and is not for background threads
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    epochs = range(min(len(logging[name]) for name in SERIES))
    figure = Figure(figsize=(9, 12), layout="constrained")
    FigureCanvasAgg(figure)
    losses, seconds, rates = figure.subplots(3, 1, sharex=True)
    losses.plot(epochs, logging["train_losses"][: len(epochs)], color="tab:blue", label="training loss")
    losses.plot(epochs, logging["val_losses"][: len(epochs)], color="tab:red", label="validation loss")
    losses.set_ylabel("loss")
    dice = losses.twinx()
    dice.plot(epochs, logging["mean_fg_dice"][: len(epochs)], color="tab:green", ls=":", label="pseudo-Dice")
    dice.plot(epochs, logging["ema_fg_dice"][: len(epochs)], color="tab:green", label="its moving average")
    dice.set_ylabel("Dice")
    lines = [*losses.get_lines(), *dice.get_lines()]
    losses.legend(lines, [line.get_label() for line in lines], loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4)
    starts, ends = logging["epoch_start_timestamps"], logging["epoch_end_timestamps"]
    seconds.plot(epochs, [ends[i] - starts[i] for i in epochs], color="tab:blue")
    seconds.set(ylabel="seconds per epoch", ylim=(0, None))
    rates.plot(epochs, logging["lrs"][: len(epochs)], color="tab:blue")
    rates.set(ylabel="learning rate", xlabel="epoch", yscale="log")
    with replacing(file) as partial:
        figure.savefig(partial, dpi=80)
