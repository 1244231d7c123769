"""Writers."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from segplug.model import Labels


class Writer(Protocol):
    """A function that writes a label map to `path`, with the geometry it came with.

    Reading the file again with the reader of the same name gives the same array and geometry. The framework calls it
    with a path beside the final one (same file ending) and renames the file, or the folder made there, when it is
    whole. A format's second file (as the spacing of a TIFF stack) is for the writer itself to write, under the name
    that goes with the final path: the given one without `.partial-`, twelve hexadecimal digits and a hyphen at its
    front.

    A function with a parameter `label_names` is told the names of labels, for formats that have a place for them:
    ``{0: "background", 1: "liver"}``, of all labels that may stand in the map. Give it a default, None: where labels
    have no names it is not told any.
    """

    def __call__(self, path: Path, labels: Labels) -> None: ...
