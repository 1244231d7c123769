"""Planners."""

from __future__ import annotations

from typing import Protocol

from segplug.model import Budget, DatasetDescription, Fingerprint, Plan


class Planner(Protocol):
    """A function from what is known of a data set to a plan.

    `dataset.reader` names the reader and `dataset.normalizers` the normalizer of each channel, both already chosen;
    everything else about images comes from the fingerprint. The plan must name only components that exist; the plan
    stage checks that, fills in `provenance`, and keeps configurations that a person added to an existing plans file.

    A planner may call another one, such as `segplug_builtin.planners.plan_default`, and change what it returns with
    `dataclasses.replace`. Give the plan a name of its own then (`plans_name`, unless the budget names one), and each
    configuration whose images are prepared in another way its own `data_identifier`.

    Raises:
        segplug.errors.DataError: no plan is possible; the message says which property of the data set is against it.
    """

    def __call__(self, fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan: ...
