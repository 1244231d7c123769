"""Which components a plan names, whether they exist, and by which names nnU-Net knows them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from segplug.errors import PluginError, UsageError, WrongReferenceError
from segplug.kernel import Registry
from segplug.kernel.plugins import Provided
from segplug.kernel.provenance import differences
from segplug.model import ComponentRef, Configuration, Plan

RECIPE_PARTS = {
    "loss": "losses",
    "optimizer": "optimizers",
    "schedule": "schedules",
    "augmentation": "augmentations",
    "network": "architectures",
}
"""Options of a training recipe that name components, and their kinds."""


class Named(NamedTuple):
    """One place in a plan that names a component."""

    where: str
    kind: str
    name: str


def check_components(registry: Registry, plan: Plan) -> list[Provided]:
    """Find every component that a plan names, each once, sorted by kind and name.

    Raises:
        PluginError: some do not exist, or stand for none in particular; all of them are listed.
    """
    found: dict[tuple[str, str], Provided] = {}
    problems: dict[tuple[str, str], str] = {}
    for named in components_of(plan):
        key = (named.kind, named.name)
        if key in found or key in problems:
            continue
        try:
            found[key] = registry.find(*key)
        except PluginError as error:
            problems[key] = f"{named.where}: {error}"
    if problems:
        listed = "\n  ".join(problems.values())
        raise PluginError(f"plan {plan.plans_name!r} names components that cannot be used:\n  {listed}")
    return [found[key] for key in sorted(found)]


def require_installed(registry: Registry, plan: Plan, configurations: Iterable[str], kinds: Container[str]) -> None:
    """Refuse configurations that name a component which is not there, with what to install.

    Args:
        configurations: names of the plan's.
        kinds: of component that are needed.

    Raises:
        PluginError: some are not there, and the plan's record tells which distribution they came from when it was made.
            What the record does not know is left for where it is used.
    """
    wanted = dict.fromkeys(configurations)
    only = replace(plan, configurations={name: plan.configurations[name] for name in wanted}, training={})
    missing = []
    for named in (each for each in components_of(only) if each.kind in kinds):
        try:
            registry.find(named.kind, named.name)
        except WrongReferenceError:
            missing.append((named.kind, named.name))
    recorded = [entry for entry in plan.provenance if (entry.get("kind"), entry.get("name")) in missing]
    if recorded:
        listed = "\n  ".join(differences(recorded, registry))
        raise PluginError(f"plan {plan.plans_name!r} of {plan.dataset_name} was made with other plugins:\n  {listed}")


def plain_name(name: object) -> str:
    """A component's name without its plugin's."""
    return str(name).rpartition(":")[2]


@contextmanager
def knowing(recorded: Sequence[Mapping[str, Any]], registry: Registry, what: str) -> Iterator[None]:
    """Within the block, a component that does not exist is told with what to install, if the record knows it.

    Args:
        recorded: as `segplug.kernel.provenance` records it.
        what: the thing that has the record.

    Raises:
        UsageError: instead of the one that a name of the user's caused.
        PluginError: instead of another `WrongReferenceError`.
    """
    try:
        yield
    except (UsageError, WrongReferenceError) as error:
        cause = error.__cause__ if isinstance(error, UsageError) else error
        missing = cause.missing if isinstance(cause, WrongReferenceError) else None
        if missing is None:
            raise
        kind, name = missing
        # a name may have been asked for as plugin:name then, and not now, or the other way round
        entries = [e for e in recorded if e.get("kind") == kind and plain_name(e.get("name")) == plain_name(name)]
        if not entries:
            raise
        listed = "\n  ".join(differences(entries, registry))
        raised = UsageError if isinstance(error, UsageError) else PluginError
        raise raised(f"{what} was made with other plugins:\n  {listed}") from error


def components_of(plan: Plan) -> Iterator[Named]:
    """Every component that a plan names, in the plan's order."""
    yield Named("image_reader_writer", "readers", plan.reader.name)
    for name, configuration in plan.configurations.items():
        yield from _of_configuration(f"configuration {name!r}", configuration)
    for name, recipe in plan.training.items():
        yield from _of_recipe(f"training recipe of {repr(name) if name else 'all configurations'}", recipe)


def nnunet_name(registry: Registry, kind: str, name: str) -> str:
    """The name to write into a plan: nnU-Net's own where the name stands for a built-in component that has one.

    Raises:
        PluginError: no component has this name.
    """
    registry.find(kind, name)
    builtin = next((p for p in registry.all(kind) if p.plugin.builtin and p.answers_to(name)), None)
    return builtin.component.aliases[0] if builtin and builtin.component.aliases else name


def _of_configuration(where: str, configuration: Configuration) -> Iterator[Named]:
    for ref in configuration.normalization:
        yield Named(where, "normalizers", ref.name)
    resamplers = (configuration.resample_data, configuration.resample_seg, configuration.resample_probabilities)
    for ref in resamplers:
        yield Named(where, "resamplers", ref.name)
    yield Named(where, "architectures", configuration.architecture.name)


def _of_recipe(where: str, recipe: ComponentRef) -> Iterator[Named]:
    yield Named(where, "trainers", recipe.name)
    for part, kind in RECIPE_PARTS.items():
        value: Any = recipe.options.get(part)
        name = value.get("name") if isinstance(value, Mapping) else value
        if isinstance(name, str):
            yield Named(f"{where}, {part}", kind, name)
