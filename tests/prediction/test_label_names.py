"""Writers that ask what labels are called are told; the others are called as ever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segplug import Component, hookimpl
from segplug.kernel import Kernel
from segplug.model import Geometry, Labels, LabelSet, Prediction
from segplug.protocols import Writer
from segplug.runtime.prediction_output import PredictionOutput, find_writer

ORGANS = LabelSet({"background": 0, "liver": 1, "kidney": (2,), "ignore": 3})
REGIONS = LabelSet(
    {"background": 0, "whole tumor": (1, 2, 3), "tumor core": (2, 3), "enhancing": (3,), "ignore": 4}, (1, 2, 3)
)


def asks(path: Path, labels: Labels, *, label_names: Mapping[int, str] | None = None) -> None:
    path.write_text(repr(label_names))


def asks_not(path: Path, labels: Labels) -> None:
    path.write_text("no names")


class Plugin:
    @hookimpl
    def segplug_writers(self) -> Iterator[Component[Writer]]:
        yield Component("text", asks, "a text of names")
        yield Component("plain", asks_not, "a text")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (ORGANS, {0: "background", 1: "liver", 2: "kidney"}),
        (REGIONS, {0: "background", 1: "whole tumor", 2: "tumor core", 3: "enhancing"}),
        (
            LabelSet({"background": 0, "all": (1, 2), "edema": 2, "core": 1}, (7, 2, 1)),
            {0: "background", 1: "core", 2: "edema", 7: "all"},
        ),
    ],
    ids=["labels", "regions", "regions with a label of their own"],
)
def test_names_of_labels_that_may_stand_in_a_map(labels: LabelSet, names: dict[int, str]) -> None:
    assert labels.label_names == names
    assert list(labels.label_names) == sorted(names)


@pytest.mark.parametrize(
    ("writer", "written"),
    [("text", "{0: 'background', 1: 'liver', 2: 'kidney'}"), ("plain", "no names")],
)
def test_a_writer_is_told_what_it_asks_for(tmp_path: Path, writer: str, written: str) -> None:
    kernel = Kernel(discover=False)
    kernel.register(Plugin(), "names")
    output = PredictionOutput(tmp_path, find_writer(kernel, writer, ".txt", ORGANS), ".txt")
    array: Any = np.zeros((1, 2, 2), np.uint8)
    made = output.write("case", Prediction(Labels(array, Geometry((1.0, 1.0, 1.0)))), {})
    assert made.read_text() == written
