"""The plots of a report, as SVG that stands in the page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segplug.model import LabelSet
from segplug.runtime.overlay import COLOURS, literally
from segplug.runtime.report.facts import CaseFacts, FoldFacts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#9AA0A6"
AXES = ("z", "y", "x")
WIDE = 10
"""From this ratio on, sizes of labels are drawn on a logarithmic axis."""


def shapes_and_spacings(cases: Sequence[CaseFacts]) -> str:
    """How many cases have which shape and spacing, per axis."""
    axes = [a for a in range(3) if not (a == 0 and all(case.is_2d for case in cases))]
    figure = _figure(3.1 * len(axes), 4.2)
    panels = figure.subplots(2, len(axes), squeeze=False)
    for column, axis in enumerate(axes):
        _counts(panels[0][column], [case.shape[axis] for case in cases], f"shape {AXES[axis]} (voxels)")
        _counts(panels[1][column], [case.spacing[axis] for case in cases], f"spacing {AXES[axis]} (mm)")
    return _svg(figure, "Histograms of shapes and spacings")


def intensities(cases: Sequence[CaseFacts], channels: Sequence[str]) -> str:
    """Intensities in labelled voxels beside those in all voxels, per channel."""
    figure = _figure(4.4 * len(channels), 2.8)
    for number, (panel, name) in enumerate(
        zip(figure.subplots(1, len(channels), squeeze=False)[0], channels, strict=True)
    ):
        everything = np.concatenate([case.everything[number] for case in cases])
        labelled = np.concatenate([case.foreground[number] for case in cases])
        if everything.size:
            low, high = np.percentile(everything, [0.5, 99.5])
            bins = np.linspace(low, high if high > low else low + 1, 61)
            for values, colour, label in ((everything, GREY, "all voxels"), (labelled, BLUE, "labelled voxels")):
                if values.size:
                    shares = np.full(values.size, 100 / values.size)
                    panel.hist(
                        np.clip(values, bins[0], bins[-1]), bins, weights=shares, alpha=0.6, color=colour, label=label
                    )
            panel.legend(loc="upper right", frameon=False, fontsize=8)
        panel.set(xlabel=f"{literally(name)}: intensity", ylabel="% of voxels", yscale="log")
        _few_ticks(panel)
    return _svg(figure, "Histograms of intensities")


def label_sizes(cases: Sequence[CaseFacts], labels: LabelSet) -> str:
    """Size of each class in each case that has it, and in how many cases it is."""
    classes = labels.classes
    figure = _figure(7.6, 0.9 + 0.42 * len(classes))
    panel = figure.subplots()
    for row, target in enumerate(classes):
        sizes = np.array([case.sizes[target] for case in cases if case.sizes[target] > 0])
        if sizes.size:
            spread = np.linspace(-0.28, 0.28, sizes.size)
            panel.plot(sizes, row + spread, "o", ms=3, alpha=0.5, color=COLOURS[row % (len(COLOURS) - 1)])
            panel.plot([np.median(sizes)] * 2, [row - 0.36, row + 0.36], color="black", lw=1.2)
    having = [sum(case.sizes[target] > 0 for case in cases) for target in classes]
    named = [
        f"{literally(labels.name_of(target))} ({count} of {len(cases)})"
        for target, count in zip(classes, having, strict=True)
    ]
    panel.set_yticks(range(len(classes)), named)
    panel.set_ylim(len(classes) - 0.4, -0.6)
    unit = "mm²" if all(case.is_2d for case in cases) else "mm³"
    every = [case.sizes[target] for case in cases for target in classes if case.sizes[target] > 0]
    if every and max(every) > WIDE * min(every):
        panel.set(xscale="log")
    else:  # ticks within one power of ten would lie over each other
        _few_ticks(panel)
    panel.set(xlabel=f"size in each case ({unit}); line: median")
    return _svg(figure, "Sizes of the labels")


def curves(folds: Sequence[FoldFacts]) -> str:
    """Losses and pseudo-Dice of every fold over the epochs."""
    figure = _figure(9.2, 3.1)
    losses, dice = figure.subplots(1, 2)
    for number, fold in enumerate(folds):
        colour = COLOURS[number % (len(COLOURS) - 1)]
        epochs = range(1, fold.epochs + 1)
        losses.plot(epochs, fold.logging["train_losses"][: fold.epochs], color=colour, lw=1, label=f"fold {fold.fold}")
        losses.plot(epochs, fold.logging["val_losses"][: fold.epochs], color=colour, lw=1, ls=":")
        dice.plot(epochs, fold.logging["ema_fg_dice"][: fold.epochs], color=colour, lw=1.4)
        dice.plot(epochs, fold.logging["mean_fg_dice"][: fold.epochs], color=colour, lw=0.7, alpha=0.45)
    losses.set(xlabel="epoch", ylabel="loss (dotted: validation)")
    losses.legend(loc="upper right", frameon=False, fontsize=8)
    dice.set(xlabel="epoch", ylabel="pseudo-Dice, moving average", ylim=(0, 1))
    for panel in (losses, dice):
        _few_ticks(panel, whole=True)
    return _svg(figure, "Training curves")


def _counts(panel: Axes, values: Sequence[float], label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    distinct = np.unique(np.round(values, 6))
    if distinct.size == 1:
        panel.bar([f"{distinct[0]:g}"], [len(values)], width=0.3, color=BLUE)
        panel.set_xlim(-1, 1)
    else:
        panel.hist(values, min(30, max(5, distinct.size)), color=BLUE)
        _few_ticks(panel, whole=all(value % 1 == 0 for value in values))
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set(xlabel=label, ylabel="cases")


def _few_ticks(panel: Axes, *, whole: bool = False) -> None:
    """So few along x that their numbers do not touch; `whole` numbers where nothing lies between."""
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(5, integer=whole))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    return figure


def _svg(figure: Figure, described: str) -> str:
    from matplotlib import rc_context

    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_facecolor("none")
    text = io.StringIO()
    # letters as text, in the page's font; the same ids every time
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": described}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": described})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
