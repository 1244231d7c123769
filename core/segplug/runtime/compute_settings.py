"""How torch computes while a network is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from segplug.runtime.device import cpu_cores
from segplug.runtime.processes import ALONE, Processes

if TYPE_CHECKING:
    import torch


@contextmanager
def training_compute(device: torch.device, processes: Processes = ALONE) -> Iterator[int]:
    """Set torch up for training and put everything back; yields the number of threads.

    On a CPU the network always computes with all cores (several processes: with a share of them), whatever else runs:
    another number of threads sums in another order, and a resumed training would not be the uninterrupted one.
    Operations with a deterministic variant use it.
    On a GPU cuDNN picks the fastest kernels for the one shape that training has; see `reproducible_kernels`.
    """
    import torch

    debugging: Any = torch.utils.deterministic
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill, benchmark = debugging.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        try:
            if device.type == "cpu":
                torch.set_num_threads(max(1, cpu_cores() // processes.local_count))
                torch.use_deterministic_algorithms(True, warn_only=True)
                debugging.fill_uninitialized_memory = False  # costs time
            else:
                torch.backends.cudnn.benchmark = True
            yield torch.get_num_threads()
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            debugging.fill_uninitialized_memory = fill
            torch.backends.cudnn.benchmark = benchmark


@contextmanager
def prediction_compute(device: torch.device) -> Iterator[None]:
    """Within, cuDNN picks a GPU's fastest kernels for the shapes of tiles, which are few."""
    import torch

    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def reproducible_kernels(device: torch.device, *, wanted: bool) -> Iterator[None]:
    """Within, a GPU uses kernels that compute the same bits each time, if that is wanted; a CPU does in any case."""
    import torch

    if not wanted or device.type == "cpu":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.benchmark, cudnn.deterministic = False, True
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
