"""Where to compute and with which numbers."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

from segplug.errors import UsageError
from segplug.runtime.processes import ALONE, Processes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def resolve_device(name: str, processes: Processes = ALONE) -> torch.device:
    """The device for `auto` (CUDA, else MPS, else CPU) or for a name such as `cpu`, `cuda`, `cuda:1`, `mps`.

    Args:
        processes: of several on a machine, each gets a GPU of its own; without GPUs they share the CPU.

    Raises:
        UsageError: there is no such device on this machine, or not one for each process.
    """
    import torch

    if processes.several:
        return _device_of_process(name, processes)
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if has_cuda else "mps" if has_mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps") from None
    there = {"cpu": True, "cuda": has_cuda, "mps": has_mps}.get(device.type)
    if there is None:
        raise UsageError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps")
    if not there or (device.index or 0) >= (torch.cuda.device_count() if device.type == "cuda" else 1):
        raise UsageError(
            f"--device {name}: this machine has none that torch can use; --device auto takes what there is"
        )
    return device


def _device_of_process(name: str, processes: Processes) -> torch.device:
    import torch

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise UsageError(
            f"--device {name}: several processes train on cpu or cuda. Each takes a GPU of its own; "
            "CUDA_VISIBLE_DEVICES says which there are"
        )
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if there < processes.local_count:
        raise UsageError(
            f"{processes.local_count} processes on a machine with {there} GPUs that torch can use: each needs one of "
            "its own. Start as many as there are GPUs, or give --device cpu"
        )
    return torch.device("cuda", processes.local_rank)


def resolve_precision(name: str, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16` for a name of `PRECISIONS`.

    `auto` is the fastest that trains as well as fp32: bf16 on a CPU with instructions for it (twice as fast there) and
    on a GPU that has it, fp16 on other GPUs, else fp32. A warning tells of bf16 on a CPU without instructions for it,
    where it is computed in software.

    Raises:
        UsageError: the name is unknown, or it is fp16 on a device other than a GPU.
    """
    if name not in PRECISIONS:
        raise UsageError(f"--precision {name}: expected one of {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type != "cuda":
        raise UsageError("--precision fp16 needs a CUDA device; bf16 and fp32 work on a CPU")
    if name == "bf16" and device.type == "mps":
        raise UsageError("--precision bf16 is not to be had on MPS; fp32 is")
    if name == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        warnings.warn(
            "--precision bf16: this CPU has no instructions for it and computes it in software, many times slower than "
            "fp32; --precision auto takes what is fast",
            stacklevel=2,
        )
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if _gpu_has_bf16(device) else "fp16"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def _gpu_has_bf16(device: torch.device) -> bool:
    import torch

    major, _ = torch.cuda.get_device_capability(device)
    return torch.version.hip is not None or major >= 8  # Ampere; older ones only emulate it


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-BF16, AMX, or Arm's bf16)."""
    import torch

    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16")):
        return True
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch < 2.13
    return bool(asked is not None and asked())


def free_memory(device: torch.device) -> float:
    """Bytes that a GPU has left; of another device nothing is known, and it is taken to have enough."""
    import torch

    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else float("inf")


def sent(values: Tensor, device: torch.device | str) -> Tensor:
    """Values on a device, without waiting for what it is doing: within an epoch nothing else is sent.

    What is in pinned memory has to stay there until the device has it. Everything else is copied before this returns.
    """
    import torch

    # a copy to MPS reads its source later, whatever memory that is in
    return values.to(device, non_blocking=torch.device(device).type != "mps")


def cpu_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
