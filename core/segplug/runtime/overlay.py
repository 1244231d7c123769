"""Pictures of label maps over images, by which a person can judge them.

One row for the image alone, one per map (reference, prediction), one for where the first and the last map disagree; one
column per slice. A 2D image has one slice, and its rows stand side by side. Slices are spread evenly over the extent of
the labels and cut across the axis with the largest voxels; pixels have their true proportions. Where the geometry says
how the image lies in the world, slices are turned as radiologists look at them: anterior or superior up, the patient's
left on the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segplug.model import Geometry, Image, Labels, LabelSet
from segplug.model.evaluation import Class
from segplug.runtime.confusion import as_labels
from segplug.runtime.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2", "#FFFFFF")
"""Told apart by colour-blind people too (Okabe and Ito, 2008); taken again from the front for further classes."""

_BACKGROUND, _TEXT = "#101418", "#E8EAED"
_WRONG = "#FF2D20"
_PANEL_INCHES = 2.1
_MARGIN = 0.35
"""Image shown around the labels, as a share of their extent on each side."""


def literally(name: str) -> str:
    """A name for matplotlib to draw as it is written; what stands between dollars would be taken for a formula."""
    return name.replace("$", r"\$")


@dataclass(frozen=True)
class _View:
    """How a slice is taken from a volume and turned upright."""

    axis: int
    flips: tuple[bool, bool]
    window: tuple[slice, slice]
    aspect: float

    def plane(self, volume: NDArray[Any], index: int) -> NDArray[Any]:
        """One slice, (row, column) or (row, column, colour); `volume` has its spatial axes first."""
        plane: NDArray[Any] = np.take(volume, index, axis=self.axis)[self.window]
        return plane[:: -1 if self.flips[0] else 1, :: -1 if self.flips[1] else 1]


def write_overlay(
    path: Path,
    image: Image,
    maps: Mapping[str, Labels],
    labels: LabelSet,
    *,
    title: str = "",
    slices: int = 4,
    channel: int = 0,
) -> None:
    """Write a PNG. See `draw_overlay`."""
    figure = draw_overlay(image, maps, labels, title=title, slices=slices, channel=channel)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=110, facecolor=figure.get_facecolor())


def draw_overlay(
    image: Image,
    maps: Mapping[str, Labels],
    labels: LabelSet,
    *,
    title: str = "",
    slices: int = 4,
    channel: int = 0,
) -> Figure:
    """Draw label maps over their image.

    Args:
        image: raw image; three channels with values from 0 to 255 in a single slice are shown as colours.
        maps: caption -> label map of the image's shape, as {"reference": ..., "prediction": ...}. Slices are chosen by
            all of them together.
        labels: names and what to outline: regions where there are any, else every label.
        slices: how many, at most.
        channel: the channel shown, if not in colours.

    Returns:
        A matplotlib figure of its own, known to no global state.
    """
    arrays = [map_.array for map_ in maps.values()]
    shown = np.any([np.isin(array, labels.foreground_labels) for array in arrays], axis=0)
    if not shown.any():
        shown = np.ones(image.shape, dtype=bool)
    view = _choose_view(shown, image.geometry)
    chosen = _choose_slices(shown, view.axis, slices)
    pictures = _pictures(image, channel, [(view, index) for index in chosen])
    captions = ["image", *maps, *(["disagreement"] if len(maps) > 1 else [])]
    flat = len(chosen) == 1
    grid = (1, len(captions)) if flat else (len(captions), len(chosen))
    figure = _new_figure(pictures[0].shape[0] * view.aspect / pictures[0].shape[1], grid, 1.6 if flat else 1.0)
    panels = figure.subplots(*grid, squeeze=False)
    for column, index in enumerate(chosen):
        planes = [view.plane(array, index) for array in arrays]
        for row, caption in enumerate(captions):
            panel = panels[0][row] if flat else panels[row][column]
            panel.imshow(pictures[column], cmap="gray", vmin=0, vmax=1, aspect=view.aspect, interpolation="nearest")
            if 0 < row <= len(planes):
                _outline(panel, planes[row - 1], labels)
            elif row:
                wrong = (planes[0] != planes[-1]) & (planes[0] != labels.ignore_label)
                _tint(panel, [(wrong, _WRONG, 0.7)])
            _caption(panel, literally(caption), f"slice {index + 1} of {image.shape[view.axis]}", (row, column), flat)
    if title:
        figure.suptitle(literally(title), color=_TEXT, fontsize=11)
    _legend(figure, labels, disagreement=len(maps) > 1)
    return figure


def _new_figure(height_over_width: float, grid: tuple[int, int], scale: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = _PANEL_INCHES * scale
    height = width * float(np.clip(height_over_width, 0.4, 2.5))
    size = (width * grid[1] + 0.4, height * grid[0] + 1.0)
    figure = Figure(figsize=size, facecolor=_BACKGROUND, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _caption(panel: Axes, caption: str, place: str, cell: tuple[int, int], flat: bool) -> None:
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    row, column = cell
    if flat:
        panel.set_title(caption, color=_TEXT, fontsize=10)
        return
    if row == 0:
        panel.set_title(place, color=_TEXT, fontsize=8)
    if column == 0:
        panel.set_ylabel(caption, color=_TEXT, fontsize=10)


def _choose_view(shown: NDArray[np.bool_], geometry: Geometry) -> _View:
    """Cut across the axis with the largest voxels (the first of several), show the labels with some room around."""
    spacing = geometry.spacing
    axis = int(np.argmax(spacing)) if 1 not in shown.shape else shown.shape.index(1)
    axes = [a for a in range(3) if a != axis]
    window = []
    for a in axes:
        occupied = np.flatnonzero(shown.any(axis=tuple(b for b in range(3) if b != a)))
        first, last = int(occupied[0]), int(occupied[-1]) + 1
        room = max(6, round(_MARGIN * (last - first)))
        window.append(slice(max(0, first - room), min(shown.shape[a], last + room)))
    return _View(axis, _upright(geometry, axes), (window[0], window[1]), spacing[axes[0]] / spacing[axes[1]])


def _upright(geometry: Geometry, axes: Sequence[int]) -> tuple[bool, bool]:
    """Whether rows and columns run against the way one looks at a patient.

    World axes point left, posterior and superior (ITK's frame). Rows should go towards posterior or inferior, columns
    towards left or posterior.
    """
    if len(geometry.direction) != 9:
        return False, False
    direction = np.reshape(geometry.direction, (3, 3))
    flips = []
    for a in axes:
        towards = direction[:, 2 - a]  # array axes are z, y, x; the file's are x, y, z
        world = int(np.argmax(np.abs(towards)))
        flips.append(bool((towards[world] > 0) == (world == 2)))
    return flips[0], flips[1]


def _choose_slices(shown: NDArray[np.bool_], axis: int, most: int) -> list[int]:
    """Evenly spread over the slices with labels, ends left out where there are enough."""
    occupied = np.flatnonzero(shown.any(axis=tuple(a for a in range(3) if a != axis)))
    places = (np.arange(most) + 0.5) / most * len(occupied) - 0.5
    return sorted({int(occupied[round(place)]) for place in np.clip(places, 0, len(occupied) - 1)})


def _pictures(image: Image, channel: int, cuts: Sequence[tuple[_View, int]]) -> list[NDArray[np.float32]]:
    """Slices as grey values (row, column) or colours (row, column, 3) in 0..1, by the percentiles of what is shown."""
    array = image.array
    if array.shape[0] == 3 and 1 in image.shape and array.min() >= 0 and array.max() <= 255:
        top = 255 if array.max() > 1 else 1
        return [(view.plane(np.moveaxis(array, 0, -1), index) / top).astype(np.float32) for view, index in cuts]
    planes = [view.plane(array[channel], index) for view, index in cuts]
    seen = np.concatenate([plane[np.isfinite(plane)] for plane in planes])
    low, high = np.percentile(seen, [1, 99]) if seen.size else (0.0, 1.0)
    return [np.clip((plane - low) / max(high - low, 1e-12), 0, 1).astype(np.float32) for plane in planes]


def _outline(panel: Axes, plane: NDArray[Any], labels: LabelSet) -> None:
    """Tint each class and draw its border; of overlapping regions the later one lies on top."""
    masks = [(np.isin(plane, as_labels(target)), colour) for target, colour in _coloured(labels)]
    _tint(panel, [(mask, colour, 0.28) for mask, colour in masks])
    rows, columns = (np.arange(-1, n + 1) for n in plane.shape)
    for mask, colour in masks:
        if mask.any():
            panel.contour(columns, rows, np.pad(mask, 1), levels=[0.5], colors=[colour], linewidths=1.3)
    panel.set(xlim=(-0.5, plane.shape[1] - 0.5), ylim=(plane.shape[0] - 0.5, -0.5))


def _tint(panel: Axes, masks: Sequence[tuple[NDArray[np.bool_], str, float]]) -> None:
    tint = np.zeros((*masks[0][0].shape, 4), dtype=np.float32)
    for mask, colour, strength in masks:
        tint[mask] = [*_rgb(colour), strength]
    panel.imshow(tint, aspect=panel.get_aspect(), interpolation="nearest")


def _legend(figure: Figure, labels: LabelSet, disagreement: bool) -> None:
    from matplotlib.patches import Patch

    entries = [(literally(labels.name_of(target)), colour) for target, colour in _coloured(labels)]
    entries += [("disagreement", _WRONG)] if disagreement else []
    figure.legend(
        handles=[Patch(facecolor=(*_rgb(colour), 0.4), edgecolor=colour, label=name) for name, colour in entries],
        loc="outside lower center",
        ncols=min(len(entries), 5),
        frameon=False,
        labelcolor=_TEXT,
        fontsize=9,
    )


def _coloured(labels: LabelSet) -> list[tuple[Class, str]]:
    return [(target, COLOURS[i % len(COLOURS)]) for i, target in enumerate(labels.classes)]


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
