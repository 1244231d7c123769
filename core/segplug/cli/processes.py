"""Several processes that do one thing together: those that torchrun started, and starting them without it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from segplug.errors import SegplugError, UsageError

if TYPE_CHECKING:
    from segplug.runtime.processes import Processes

NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells a process that it starts; torch.distributed reads the address itself."""

_STARTED = "TORCHELASTIC_RUN_ID"
_SECONDS = 1.0


def rank_and_count(environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Number of this process among those of torchrun, and how many these are; (0, 1) for one alone."""
    environment = os.environ if environment is None else environment
    whole = all(environment.get(name, "").isdecimal() for name in NUMBERS)
    if not (whole and all(name in environment for name in ADDRESS)):
        return 0, 1
    return int(environment["RANK"]), int(environment["WORLD_SIZE"])


def processes_here(environment: Mapping[str, str] | None = None) -> Processes:
    """The processes that torchrun started together with this one; one alone without torchrun.

    They end with what started them, however that ends.

    Raises:
        UsageError: the environment is contradictory.
    """
    from segplug.runtime.processes import ALONE, Processes

    environment = os.environ if environment is None else environment
    rank, count = rank_and_count(environment)
    if count == 1:
        return ALONE
    local = int(environment["LOCAL_RANK"]), int(environment["LOCAL_WORLD_SIZE"])
    if not (0 <= rank < count and 0 <= local[0] < local[1] <= count):
        told = ", ".join(f"{name}={environment[name]}" for name in NUMBERS)
        raise UsageError(f"the environment says {told}; expected what torchrun sets")
    if _STARTED in environment:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    return Processes(rank, count, *local)


def refuse_several(command: str) -> None:
    """Commands that one process does: started by torchrun, each process would do all of it.

    Raises:
        UsageError: there are several.
    """
    count = rank_and_count()[1]
    if count > 1:
        raise UsageError(
            f"torchrun started {count} processes, but only 'segplug train' is for several; start segplug {command} "
            "without torchrun. Predictions are divided by --part"
        )


def launch(arguments: Sequence[str], count: int) -> None:
    """Run `segplug` with these arguments in several processes of this machine that work together; wait for their end.

    This is torchrun's own launcher: when one process fails, the others are ended.

    Raises:
        SystemExit: a process failed, whose exit code it has; what was wrong it has told.
        SegplugError: a process was killed.
        KeyboardInterrupt: Ctrl-C, after all have ended.
    """
    import logging
    from uuid import uuid4

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes tell what is wrong
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "segplug", *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            raise SystemExit(failure.exitcode) from None
        raise SegplugError(
            f"process {rank} of {count} was ended by signal {-failure.exitcode} ({failure.signal_name()}; SIGKILL is "
            "often for want of memory), and the others with it. What is finished is kept; call again with --continue"
        ) from None
    except SignalException as error:
        if error.sigval is signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + int(error.sigval)) from None


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os._exit(1)
