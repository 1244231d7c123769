"""One phantom data set of each kind that nnU-Net's rules tell apart, all of them small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from segplug.testing.phantoms import Phantom, write_phantom_dataset


@dataclass(frozen=True)
class Kind:
    """A phantom data set, and how to plan it.

    Args:
        look: what the cases are like.
        cases: how many there are for training.
        memory_gb: what the planner must be given (`--memory-gb`) so that so small a data set is planned as large ones
            are; None for the planner's own.
    """

    look: Phantom
    cases: int = 5
    memory_gb: float | None = None

    def write(self, folder: Path, *, test_cases: int = 0, seed: int = 0) -> Path:
        """Write the raw data set `folder` (named `DatasetXXX_NAME`), with cases for testing if asked; its path."""
        return write_phantom_dataset(folder, self.look, cases=self.cases, test_cases=test_cases, seed=seed)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "two channels": Kind(Phantom((16, 26, 22), (1.4, 1.0, 0.8), 1.4, ("T1", "T2"))),
        "CT with cascade": Kind(Phantom((42, 64, 60), (1.5, 1.0, 1.0), 1.1, ("CT",), classes=4), memory_gb=0.05),
        "coarse first axis": Kind(Phantom((8, 40, 38), (6.0, 0.9, 0.9), 1.3, ("CT",))),
        "coarse second axis": Kind(Phantom((36, 8, 34), (0.9, 6.0, 0.9), 1.3)),
        "coarse last axis": Kind(Phantom((36, 34, 8), (0.9, 0.9, 6.0), 1.3)),
        "single slice": Kind(Phantom((1, 40, 36), (5.0, 1.0, 1.0), 1.3)),
        "2D": Kind(Phantom((1, 40, 36), (999.0, 1.0, 1.0), channels=("R", "G"), file_ending=".png")),
        "tiny": Kind(Phantom((5, 6, 4), (1.0, 1.0, 1.0), 1.3)),
        "regions": Kind(Phantom((14, 24, 22), (1.5, 1.0, 1.0), 1.3, classes=3, regions=True)),
        "ignore label": Kind(Phantom((14, 24, 22), (1.5, 1.0, 1.0), 1.3, ignored=0.5)),
        "other channels": Kind(Phantom((10, 20, 18), (1.5, 1.0, 1.0), 1.3, ("noNorm", "rescale_to_0_1", "rgb_to_0_1"))),
        "stacks of TIFF": Kind(Phantom((12, 20, 18), (2.0, 1.0, 1.0), 1.3, file_ending=".tif")),
        "a case without foreground": Kind(Phantom((14, 24, 22), (1.5, 1.0, 1.0), 1.3, empty=(1,))),
        "three cases": Kind(Phantom((14, 24, 22), (1.5, 1.0, 1.0), 1.3), cases=3),
        "one case": Kind(Phantom((14, 24, 22), (1.5, 1.0, 1.0)), cases=1),
    }
)
"""By name: CT with 3d_lowres and a cascade, each axis the coarse one, a single slice, tiny images, and the rest."""
