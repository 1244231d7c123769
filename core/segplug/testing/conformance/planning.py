"""Planners and splitters: what is decided before any training."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path

from segplug.errors import PluginError
from segplug.model import Budget, DatasetDescription, Fingerprint, Geometry, Image, Labels, LabelSet, Plan
from segplug.protocols import Splitter
from segplug.runtime.network import build_network
from segplug.runtime.plan_codec import read_plan, write_plan
from segplug.stages.fingerprint import DrawnIntensities, combine, measure_arrays
from segplug.stages.plan import make_plan, with_components
from segplug.testing.conformance.suite import Subject, check, expect, skip
from segplug.testing.phantoms import Phantom, make_case

LOOKS = {"volumes": Phantom(), "pictures": Phantom((1, 64, 56), (999.0, 1.0, 1.0), channels=("R", "G"))}


def _known(subject: Subject, look: Phantom, cases: int = 3) -> tuple[Fingerprint, DatasetDescription]:
    """What a planner is told of a phantom data set."""
    measured = []
    for number in range(cases):
        image, labels, spacing = make_case(look, number=number)
        geometry = Geometry(spacing)
        measured.append(measure_arrays(f"case_{number}", Image(image, geometry), Labels(labels, geometry), 1000))
    drawn = DrawnIntensities(len(look.channels))
    for each in measured:
        drawn.add(each.intensities)
    description = DatasetDescription(
        name="Dataset999_Phantom",
        channel_names=look.channels,
        labels=LabelSet({"background": 0} | {f"organ_{n}": n for n in range(1, look.classes + 1)}),
        file_ending=look.file_ending,
        num_training=cases,
    )
    return combine(description.name, measured, drawn), with_components(subject.kernel, description, "simpleitk")


def _plan(subject: Subject, look: Phantom, name: str | None = None) -> Plan:
    return make_plan(subject.kernel, *_known(subject, look), subject.ref, Budget(plans_name=name))


@check("planners", "volumes and pictures get a plan whose components all exist, the same each time")
def _plans(subject: Subject) -> None:
    for what, look in LOOKS.items():
        planned = _plan(subject, look)
        expect(bool(planned.configurations), f"the plan of {what} has no configuration")
        expect(planned == _plan(subject, look), f"two plans of the same {what} differ")


@check("planners", "a plan that was written and read again is the same")
def _survives_file(subject: Subject) -> None:
    planned = _plan(subject, LOOKS["volumes"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{planned.plans_name}.json"
        write_plan(file, planned)
        again = read_plan(file)
    expect(replace(again, provenance=planned.provenance) == planned, "something was lost in the plans file")


@check("planners", "every network of the plan can be built, and takes the patch that is planned")
def _fits_network(subject: Subject) -> None:
    import torch

    for what, look in LOOKS.items():
        planned = _plan(subject, look)
        for name, configuration in planned.configurations.items():
            channels = len(look.channels) + (look.classes if configuration.previous_stage else 0)
            network = build_network(subject.kernel.registry, configuration, channels, look.classes + 1, False).train(
                False
            )
            patch = configuration.patch_size
            if math.prod(patch) > 1 << 21:
                skip(f"{name} of {what}: a patch of {patch} is too large to try")
            with torch.inference_mode():
                found = network(torch.zeros(1, channels, *patch))
            expect(
                tuple(found.shape) == (1, look.classes + 1, *patch),
                f"{name} of {what}: from a patch of {patch} come logits of shape {tuple(found.shape)}",
            )


@check("planners", "the plan has the name that the user asks for")
def _takes_name(subject: Subject) -> None:
    planned = _plan(subject, LOOKS["volumes"], "myPlans")
    expect(planned.plans_name == "myPlans", f"it is called {planned.plans_name!r}; expected 'myPlans'")


@check("splitters", "no case is on both sides of a fold, none is lost, and each is validated once")
def _splits(subject: Subject) -> None:
    cases = [f"patient{number // 2:02d}_{number % 2}" for number in range(24)]
    try:
        splitter: Splitter = subject.build()
        folds = splitter(cases)
    except (PluginError, TypeError) as error:
        skip(f"it needs options to be checked with: {error}")
    expect(len(folds) > 1, f"{len(folds)} folds; expected at least two")
    for number, fold in enumerate(folds):
        both = set(fold.train) & set(fold.val)
        expect(not both, f"fold {number}: {', '.join(sorted(both))} are both trained on and validated")
        lost = set(cases) ^ (set(fold.train) | set(fold.val))
        expect(not lost, f"fold {number}: {', '.join(sorted(lost))} are lost, or unknown")
        expect(bool(fold.train and fold.val), f"fold {number}: one of its sides is empty")
    validated = sorted(case for fold in folds for case in fold.val)
    expect(validated == cases, f"{len(validated)} cases are validated, some twice or never; expected each of 24 once")
    expect(folds == splitter(cases), "the same names gave other folds the second time")
