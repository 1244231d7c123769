"""The bundled sample is whole, correctly described and attributed."""

from __future__ import annotations

from segplug.kernel import Kernel
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.workspace import Workspace
from segplug.sample import DATASET, sample_root
from segplug.stages.verify import verify


def test_the_sample_is_a_data_set_without_problems():
    with Project(Workspace(raw=sample_root()), Kernel(discover=False), workers=0) as project:
        verification = verify(project, DATASET)
    assert verification.findings == ()
    assert len(verification.cases) == 24


def test_the_sample_says_how_many_cases_it_has_and_whose_they_are():
    folder = sample_root() / DATASET
    dataset = load_dataset(folder)
    assert dataset.description.num_training == len(dataset.cases) == 24
    terms = (folder / "ATTRIBUTION.md").read_text()
    for words in ("Medical Segmentation Decathlon", "CC BY-SA 4.0", "creativecommons.org/licenses/by-sa/4.0"):
        assert words in terms
