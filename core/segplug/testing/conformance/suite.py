"""What a conformance suite is made of: checks of a kind, and the component that they are made on."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn

from segplug.errors import SegplugError
from segplug.kernel import KINDS, Kernel
from segplug.model import ComponentRef


@dataclass(frozen=True)
class Subject:
    """A component to be checked, by the name that its plugin gave it.

    Args:
        kernel: where it is registered.
        kind: `losses`, `readers`, ...
        ref: its name, and options to check it with.
        ending: of the files that a reader or writer is for, with its dot; empty to find out.
        patch_size: that an architecture is checked with.
    """

    kernel: Kernel
    kind: str
    ref: ComponentRef
    ending: str = ""
    patch_size: tuple[int, ...] = (32, 32, 32)

    def build(self, **offered: Any) -> Any:
        """Make the component as a run does; see `segplug.kernel.Registry.build`."""
        return self.kernel.registry.build(self.kind, self.ref, **offered)


Run = Callable[[Subject], None]


@dataclass(frozen=True)
class Check:
    """One thing that holds for every good component of a kind.

    Args:
        kind: of component.
        statement: what holds, as a sentence.
        run: raises AssertionError with what was found where it does not hold.
    """

    kind: str
    statement: str
    run: Run


class State(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """A check's end, with what was found or why it was skipped."""

    statement: str
    state: State
    explanation: str = ""


@dataclass(frozen=True)
class BoundCheck:
    """A check together with what it is made on: call it in a test."""

    check: Check
    subject: Subject = field(repr=False)

    def __call__(self) -> None:
        """Make the check.

        Raises:
            AssertionError: it does not hold.
            unittest.SkipTest: it cannot be made; pytest shows it as skipped.
        """
        self.check.run(self.subject)

    def __str__(self) -> str:
        return self.check.statement

    def finding(self) -> Finding:
        """Make the check and tell how it ended, whatever the component does."""
        statement = self.check.statement
        try:
            self()
        except unittest.SkipTest as skipped:
            return Finding(statement, State.SKIPPED, str(skipped))
        except AssertionError as failure:
            return Finding(statement, State.FAILED, str(failure) or "an assertion without a text failed")
        except (Exception, SystemExit) as error:  # sys.exit in a component ends its check, and not the others
            return Finding(statement, State.FAILED, f"{type(error).__name__}: {error}")
        return Finding(statement, State.PASSED)


CHECKS: dict[str, list[Check]] = {kind: [] for kind in KINDS}


def check(kind: str, statement: str) -> Callable[[Run], Run]:
    """Put a function into the suite of a kind."""

    def add(run: Run) -> Run:
        CHECKS[kind].append(Check(kind, statement, run))
        return run

    return add


def expect(holds: bool, found: str) -> None:
    """Fail with what was found unless something holds. Unlike `assert`, it is there under `python -O` too."""
    if not holds:
        raise AssertionError(found)


def skip(reason: str) -> NoReturn:
    """End a check that cannot be made."""
    raise unittest.SkipTest(reason)


def refusal(call: Callable[[], object], what: str, *named: str) -> None:
    """Fail unless a call raises one of segplug's errors whose text has all that is to be named."""
    try:
        call()
    except SegplugError as error:
        missing = [part for part in named if part not in str(error)]
        expect(not missing, f"{what}: the error does not name {', '.join(missing)}: {error}")
    except Exception as error:
        raise AssertionError(
            f"{what}: {type(error).__name__}: {error}; expected a segplug.errors.DataError"
            + (f" that names {', '.join(named)}" if named else "")
        ) from error
    else:
        raise AssertionError(f"{what} is accepted; expected a segplug.errors.DataError")


def conformance(
    kind: str,
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    ending: str = "",
    patch_size: Sequence[int] = (32, 32, 32),
    kernel: Kernel | None = None,
) -> list[BoundCheck]:
    """Every check of a kind, bound to an installed component: the tests of a plugin are a loop over them.

    Args:
        kind: as in `segplug plugins list`: `losses`, `readers`, ...
        name: of the component, or `plugin:name`.
        options: to make it with.
        ending: for readers and writers, of their files (`.npy`).
        patch_size: for architectures, two or three axes that suit the network.
        kernel: where the component is registered; None for what is installed.

    Raises:
        UsageError: no such kind.
        PluginError: no such component.
    """
    kernel = Kernel() if kernel is None else kernel
    kernel.registry.find(kind, name)
    subject = Subject(kernel, kind, ComponentRef(name, dict(options or {})), ending, tuple(patch_size))
    return [BoundCheck(each, subject) for each in CHECKS[kind]]
