"""Overlays: what is shown, which way up, and in which proportions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as Picture

from segplug.model import Geometry, Image, Labels, LabelSet
from segplug.runtime.overlay import draw_overlay, write_overlay

ONE = LabelSet({"background": 0, "organ": 1})
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def panels(figure):
    """Per caption, the image data and tints drawn, column by column."""
    found, caption = {}, None
    for axes in figure.axes:
        caption = axes.get_ylabel() or (axes.get_title() if not axes.get_title().startswith("slice") else "") or caption
        found.setdefault(caption, []).append([np.asarray(drawn.get_array()) for drawn in axes.images])
    return found


def volume(shape, spacing=(1.0, 1.0, 1.0), direction=()):
    array = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    origin = (0.0, 0.0, 0.0) if direction else ()
    return Image(array, Geometry(spacing, origin, direction))


def box(image, *ranges):
    array = np.zeros(image.shape, np.uint8)
    array[tuple(slice(*r) for r in ranges)] = 1
    return Labels(array, image.geometry)


def test_slices_spread_over_the_labels_across_the_thickest_axis():
    image = volume((40, 12, 30), spacing=(1.0, 5.0, 1.0))
    figure = draw_overlay(image, {"reference": box(image, (10, 30), (2, 10), (5, 25))}, ONE)
    assert [axes.get_title() for axes in figure.axes[:4]] == [f"slice {n} of 12" for n in (3, 5, 7, 9)]
    shown = panels(figure)["image"][0][0].shape
    assert shown == (20 + 2 * 7, 20 + 5 + 5)  # 35 % around the box, cut off at the border of the image
    assert figure.axes[0].get_aspect() == 1


def test_pixels_have_their_proportions():
    image = volume((6, 10, 20), spacing=(4.0, 3.0, 1.0))
    figure = draw_overlay(image, {"reference": box(image, (1, 5), (2, 8), (2, 18))}, ONE)
    assert figure.axes[0].get_aspect() == 3


def test_one_panel_per_map_and_the_disagreement():
    image = volume((1, 30, 40), spacing=(999.0, 1.0, 1.0))
    maps = {"reference": box(image, (0, 1), (10, 20), (10, 20)), "prediction": box(image, (0, 1), (10, 20), (12, 20))}
    drawn = panels(draw_overlay(image, maps, ONE))
    assert list(drawn) == ["image", "reference", "prediction", "disagreement"]
    tinted = {caption: int((layers[0][1][..., 3] > 0).sum()) for caption, layers in drawn.items() if caption != "image"}
    assert tinted == {"reference": 100, "prediction": 80, "disagreement": 20}


def test_ignored_voxels_are_no_disagreement_and_regions_lie_on_one_another():
    labels = LabelSet({"background": 0, "whole": (1, 2), "core": (2,), "ignore": 3}, regions_class_order=(1, 2))
    image = volume((1, 10, 10))
    reference, prediction = np.zeros((2, 1, 10, 10), np.uint8)
    reference[0, 2:8, 2:8], reference[0, 4:6, 4:6], reference[0, 0] = 1, 2, 3
    prediction[0, :8, 2:8] = 1
    maps = {name: Labels(a, image.geometry) for name, a in (("reference", reference), ("prediction", prediction))}
    drawn = panels(draw_overlay(image, maps, labels))
    assert int((drawn["disagreement"][0][1][..., 3] > 0).sum()) == 6 + 4  # row 1 and the core; row 0 is ignored
    assert len(np.unique(drawn["reference"][0][1].reshape(-1, 4), axis=0)) == 3


@pytest.mark.parametrize(
    ("direction", "turned"),
    [
        (IDENTITY, (False, False)),  # rows go posterior, columns left: as radiologists look at it
        ((-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0), (True, True)),  # NIfTI's usual RAS
        ((), (False, False)),  # no place in the world
    ],
)
def test_slices_are_upright(direction, turned):
    image = volume((1, 12, 14), direction=direction)
    expected = image.array[0, 0]
    rows, columns = (-1 if t else 1 for t in turned)
    low, high = np.percentile(expected, [1, 99])
    shown = panels(draw_overlay(image, {}, ONE))["image"][0][0]
    np.testing.assert_allclose(shown, np.clip((expected - low) / (high - low), 0, 1)[::rows, ::columns], atol=1e-6)


def test_superior_is_up_in_coronal_slices():
    image = volume((12, 3, 14), spacing=(1.0, 5.0, 1.0), direction=IDENTITY)
    everywhere = box(image, (0, 12), (0, 3), (0, 14))
    shown = panels(draw_overlay(image, {"reference": everywhere}, ONE))["image"][0][0]
    above, below = image.array[0, -1, 0], image.array[0, 0, 0]
    assert np.corrcoef(shown[0], above)[0, 1] > 0.9
    assert np.corrcoef(shown[-1], below)[0, 1] > 0.9


def test_colours_of_photographs_are_shown():
    array = np.zeros((3, 1, 8, 9), np.float32)
    array[1] = 255
    shown = panels(draw_overlay(Image(array, Geometry((999.0, 1.0, 1.0))), {}, ONE))["image"][0][0]
    assert shown.shape == (8, 9, 3)
    np.testing.assert_array_equal(shown[0, 0], [0, 1, 0])


@pytest.mark.parametrize("value", [np.nan, 0.0, 7.0])
def test_constant_or_undefined_images_can_be_drawn(value, tmp_path):
    image = Image(np.full((1, 4, 8, 8), value, np.float32), Geometry((1.0, 1.0, 1.0)))
    write_overlay(tmp_path / "x.png", image, {"prediction": box(image, (0, 0), (0, 0), (0, 0))}, ONE)
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_files_are_pngs_that_hold_the_colours_of_the_legend(tmp_path):
    image = volume((6, 30, 30))
    write_overlay(
        tmp_path / "sub" / "case.png", image, {"reference": box(image, (1, 5), (8, 22), (8, 22))}, ONE, title="t"
    )
    with Picture.open(tmp_path / "sub" / "case.png") as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (pixels == [0xE6, 0x9F, 0x00]).all(axis=1).sum() > 100
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["case.png"]


def test_no_global_plotting_state_is_touched():
    code = """
import sys, numpy as np
from segplug.model import Geometry, Image, LabelSet
from segplug.runtime.overlay import draw_overlay
assert "matplotlib" not in sys.modules
draw_overlay(Image(np.zeros((1, 2, 8, 8), np.float32), Geometry((1.0,) * 3)), {}, LabelSet({"background": 0, "a": 1}))
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
