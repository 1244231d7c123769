"""Components that the user named: on the command line, in segplug.toml, or as an argument of a stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from segplug.errors import UsageError, WrongReferenceError
from segplug.kernel import Kernel, State
from segplug.model import ComponentRef


@contextmanager
def named_by_user(option: str) -> Iterator[None]:
    """Within the block, a component that does not exist, or does not take an option, is wrong usage.

    Args:
        option: where the user named it, as `--planner`.

    Raises:
        UsageError: instead of the registry's `WrongReferenceError`.
    """
    try:
        yield
    except WrongReferenceError as error:
        raise UsageError(f"{option}: {error}") from error


def check_settings(
    kernel: Kernel, pins: Mapping[str, str], executor: str, executor_options: Mapping[str, Mapping[str, Any]]
) -> None:
    """Find mistakes in settings that the command at hand may never use. Nothing is imported.

    A pin to a plugin that is installed and cannot be used is left to the run that needs it.

    Raises:
        UsageError: the executor, or what a pin names, does not exist; or the executor does not
            take its options.
    """
    with named_by_user("executor in the settings"):
        kernel.registry.find("executors", executor)
    if executor in executor_options:
        with named_by_user(f"[executors.{executor}] in the settings"):
            kernel.registry.check("executors", ComponentRef(executor, dict(executor_options[executor])))
    unusable = {record.name for record in kernel.plugins if record.state is not State.ACTIVE}
    for pin, target in pins.items():
        kind, _, name = pin.partition(".")
        plugin, _, _ = target.partition(":")
        if plugin in unusable:
            continue
        with named_by_user(f"pin {pin} in the settings"):
            kernel.registry.find(kind, name)
            known = {n for provided in kernel.registry.all(kind) for n in provided.names}
            if name not in known:
                raise UsageError(
                    f"pin {pin} in the settings: there is no {name!r} among the {kind}. There are: "
                    f"{', '.join(kernel.registry.names(kind))}"
                )


def configure_plugins(kernel: Kernel, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Give plugins their options from the settings.

    Args:
        options: plugin -> its options.

    Raises:
        UsageError: there is no such plugin, it takes no options, or it refuses these.
    """
    for name, given in options.items():
        with named_by_user(f"[options.{name}] in the settings"):
            kernel.configure({name: given})
