"""The processes that train one fold together, and what they tell each other beside gradients.

torchrun, or `segplug train --processes N`, starts them; each does the same, on its share of every batch and of the
validation cases, and the first alone writes. They talk by torch.distributed: gloo between CPUs, NCCL between GPUs. What
is told here are short texts, JSON, never pickles: a network is no place to unpickle from.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from segplug.errors import SegplugError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

STEP_TIMEOUT = timedelta(minutes=30)
"""How long a step of the training waits for the others: as long as a slow disk may need for a batch."""

WAIT_TIMEOUT = timedelta(days=1)
"""How long a process waits for the others to finish their validation cases. One that died is noticed at once, for its
connections are closed; this is for a machine that vanished from the network."""

LEAVE_SECONDS = 10.0


class ElsewhereError(SegplugError):
    """Another process of the training failed, and tells why; nothing is to be added here."""

    told_elsewhere = True

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen from one of them. The default is one alone, which everything works with.

    Args:
        rank: number of this one, from 0 on.
        count: of all.
        local_rank, local_count: the same among those on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    _patient: list[Any] = field(default_factory=list, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files, tells events and shows progress."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.count > 1

    def share(self, total: int) -> range:
        """Which of `total` samples are this process's: neighbours, as many for each, or one more for the first ones."""
        return self._shares(total)[self.rank]

    def sizes(self, total: int) -> list[int]:
        """How many of `total` samples each process has."""
        return [len(share) for share in self._shares(total)]

    def _shares(self, total: int) -> list[range]:
        each, more = divmod(total, self.count)
        starts = [rank * each + min(rank, more) for rank in range(self.count + 1)]
        return [range(first, stop) for first, stop in pairwise(starts)]

    def require_samples(self, batch_size: int) -> None:
        """Make sure that every process has a sample of each batch.

        Raises:
            UsageError: there are more processes than samples.
        """
        if batch_size < self.count:
            raise UsageError(
                f"a batch of {batch_size} samples cannot be divided among {self.count} processes. Start at most "
                f"{batch_size}, or train with larger batches: --set trainer.batch_size={self.count}"
            )

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """Every `count`-th item, beginning with the `rank`-th."""
        return items[self.rank :: self.count]

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Join the others, whose address the environment tells (torchrun's `MASTER_ADDR`, `MASTER_PORT`).

        Raises:
            SegplugError: this build of torch cannot, or the others do not come.
            ElsewhereError: within the block another process ended; how is told there.
        """
        if not self.several:
            yield
            return
        import torch
        import torch.distributed as dist

        if not dist.is_available():
            raise SegplugError("this build of torch has no torch.distributed: train in one process, or install another")
        nccl = torch.cuda.is_available() and dist.is_nccl_available()
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=STEP_TIMEOUT, rank=self.rank, world_size=self.count
            )
        except (dist.DistError, ValueError, RuntimeError) as error:
            raise SegplugError(
                f"process {self.rank} of {self.count} cannot join the others: {_first_line(error)}. Start them "
                "together by torchrun or --processes; several machines must reach each other at --rdzv-endpoint"
            ) from error
        try:
            with warnings.catch_warnings():
                # unused parameters are looked for in every network: whether it has some is its own business
                warnings.filterwarnings("ignore", message=".*find_unused_parameters")
                self._patient.append(dist.new_group(backend="gloo", timeout=WAIT_TIMEOUT))
                yield
        except Exception as error:
            if _is_lost_connection(error):
                raise ElsewhereError(
                    f"process {self.rank} of {self.count} lost the others: one of them ended, see what it says. "
                    f"({_first_line(error)})"
                ) from error
            raise
        finally:
            self._patient.clear()
            _leave()

    @contextmanager
    def together(self) -> Iterator[None]:
        """A part that all do, or only the first, and that has failed for all if it has for one.

        The next part begins when all have ended this one. Of processes that fail alike the first one tells why.

        Raises:
            ElsewhereError: it failed in another process.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        if not self.several:
            if error is not None:
                raise error
            return
        own = [] if error is None else [str(error), str(getattr(error, "exit_code", 1))]
        found = self.told(own)
        if error is not None and found.index(own) == self.rank:
            raise error
        for rank, (text, code) in ((rank, each) for rank, each in enumerate(found) if each):
            raise ElsewhereError(f"process {rank}: {text}", int(code))

    def agree(self, found: Mapping[str, Any]) -> None:
        """Make sure that all processes are about to do the same.

        Args:
            found: what decides the work, by names for messages; JSON values.

        Raises:
            UsageError: something differs; the message says what and where.
        """
        everywhere = self.told(found)
        for name, expected in everywhere[0].items():
            others = {rank: each.get(name) for rank, each in enumerate(everywhere) if each.get(name) != expected}
            if others:
                listed = ", ".join(f"{value} in process {rank}" for rank, value in others.items())
                raise UsageError(
                    f"processes of one training have to do the same, but {name} is {expected} in process 0 and "
                    f"{listed}. Give every machine the same folders, installed versions and options"
                )

    def told(self, value: T) -> list[T]:
        """What each process gives here, in the order of their ranks; waits for all of them.

        Args:
            value: JSON.
        """
        if not self.several:
            return [value]
        import torch
        import torch.distributed as dist

        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        (group,) = self._patient
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        dist.all_gather(lengths, torch.tensor([len(own)]), group=group)
        room = torch.zeros(max(int(length) for length in lengths), dtype=torch.uint8)
        texts = [torch.empty_like(room) for _ in range(self.count)]
        room[: len(own)] = own
        dist.all_gather(texts, room, group=group)
        return [json.loads(bytes(text[: int(length)].tolist())) for text, length in zip(texts, lengths, strict=True)]

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if not self.several:
            return values
        import torch.distributed as dist

        values = values.clone()
        dist.all_reduce(values)
        return values


ALONE = Processes()


def _leave() -> None:
    """End what torch.distributed has begun, without which Python would not end cleanly; but wait for nobody long."""
    import torch.distributed as dist

    ending = threading.Thread(target=dist.destroy_process_group, daemon=True)
    ending.start()
    ending.join(LEAVE_SECONDS)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _is_lost_connection(error: BaseException) -> bool:
    """Whether torch.distributed complains of the others; gloo's complaints are plain RuntimeErrors."""
    import torch.distributed as dist

    gloo = isinstance(error, RuntimeError) and ("gloo/" in str(error) or "Connection closed by peer" in str(error))
    return gloo or isinstance(error, dist.DistError)
