"""A training step whose network and loss torch has compiled, tried out before it is trusted."""

from __future__ import annotations

import gc
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segplug.errors import SegplugError, UsageError

Switch = bool | Literal["auto"]

BACKEND: Any = "inductor"
"""torch.compile's own; it needs Triton on a GPU and a C++ compiler on a CPU."""

AUTOMATIC = "cuda"
"""The kind of device that is compiled for without being asked; a CPU's time is that of oneDNN's kernels."""

LEAST_STEPS = 10_000
"""Of a training for which compiling, a matter of minutes, is worth it without being asked for."""

MOST_VOXELS = 1 << 21
"""Of a batch, up to which `auto` takes CUDA graphs: kernels on larger ones take longer than starting them does."""

LOSS_DIFFERS, NORM_DIFFERS = 1e-2, 5e-2
"""Share by which loss, and norm of all gradients, may differ from those of the network as it is: rounding of bf16."""

_KINDS = 64
"""Of calls (resolutions, training or not) for which torch may compile a function anew."""

Forward = Callable[[], Tensor]


class Compiler:
    """Compiles a network and its loss where that is wanted, once it has proved that it computes the same.

    `auto` compiles long trainings on a GPU. Where that fails there, the training goes on without, and says so; what
    was asked for by name and fails is an error.

    Args:
        network: in training; it is compiled in its place, its weights keep their names.
        loss: the component; compiled if it is a module.
        compile, graphs: the settings: compile at all, and replay CUDA graphs instead of starting kernels one by one.
        steps: of the whole training.
        accumulate: batches per step.
        log: for what is to be told.

    Raises:
        UsageError: what was asked for is not to be had here.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Any,
        device: torch.device,
        *,
        compile: Switch,  # noqa: A002 - the setting's name
        graphs: Switch,
        steps: int,
        accumulate: int,
        log: Callable[[str], None],
    ) -> None:
        alone = getattr(network, "no_sync", None) is None
        self._modules = [network, *([loss] if isinstance(loss, nn.Module) else [])]
        self._network, self._device, self._log = network, device, log
        self._asked, self._graphs_asked = compile is True, graphs is True
        if graphs is True and (device.type != "cuda" or compile is False or accumulate > 1):
            raise UsageError(
                "trainer.cuda_graphs=true: it needs a CUDA device and trainer.compile, and no trainer.accumulate"
            )
        if compile is True and not alone:
            raise UsageError("trainer.compile=true: several processes train together as the network is. Leave it out")
        # what graphs are of has to be compiled
        wanted = self._asked or self._graphs_asked
        self.wanted = wanted or (compile == "auto" and device.type == AUTOMATIC and alone and steps >= LEAST_STEPS)
        self._may_graph = graphs == "auto" and device.type == AUTOMATIC and accumulate == 1
        self._graphs = False

    def try_out(self, voxels: int, train: Forward, validate: Forward | None) -> None:
        """Compile, and compare with the network as it is; nothing that a training depends on has changed afterwards.

        Args:
            voxels: of a batch.
            train: a loss with gradients, of a batch; the network is in training mode.
            validate: one without, in evaluation mode; None where nothing is validated.

        Raises:
            SegplugError: compiling was asked for, and failed.
        """
        self.wanted, wanted = False, self.wanted  # whatever comes of it, it is done
        if not wanted:
            return
        started = time.perf_counter()
        with _Undone(self._network, self._device):
            first, second = (self._measure(train, validate) for _ in range(2))
        # a network that drops features gives another loss each time
        limit = LOSS_DIFFERS if _close(first[0], second[0], LOSS_DIFFERS / 10) else math.inf
        trial = _Trial(train, validate, first, (limit, limit * NORM_DIFFERS / LOSS_DIFFERS, LOSS_DIFFERS))
        self._graphs = self._graphs_asked or (self._may_graph and voxels <= MOST_VOXELS)
        if self._graphs and not self._tried(trial, graphs=True, needed=self._graphs_asked):
            self._graphs = False
        if self._graphs or self._tried(trial, graphs=False, needed=self._asked):
            how = "with CUDA graphs" if self._graphs else "without CUDA graphs"
            seconds = time.perf_counter() - started
            self._log(f"network and loss are compiled, {how} ({seconds:.0f} s); trainer.compile=false leaves it")

    def begin_step(self) -> None:
        """Before each step: what the graphs of the one before have left may be written over."""
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def _tried(self, trial: _Trial, *, graphs: bool, needed: bool) -> bool:
        try:
            with _Undone(self._network, self._device), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own, about how it compiles
                self._prove(trial, graphs)
        except Exception as error:
            self._switch_off()
            what = "CUDA graphs of it" if graphs else "compiling it"
            setting = "cuda_graphs" if graphs else "compile"
            reason = _reason(error)
            if needed:
                raise SegplugError(
                    f"trainer.{setting}=true: the training step does not bear {what} ({reason}). Leave the setting "
                    f"out, or set it to false"
                ) from error
            text = f"the training goes on without {what}, which failed ({reason}). trainer.{setting}=false spares it"
            warnings.warn(text, stacklevel=2)
            self._log(text)
            return False
        return True

    def _prove(self, trial: _Trial, graphs: bool) -> None:
        for module in self._modules:
            module.compile(backend=BACKEND, dynamic=False, options={"triton.cudagraphs": True} if graphs else None)
        with torch._dynamo.config.patch(recompile_limit=_KINDS):
            for _ in range(3 if graphs else 1):  # graphs: to warm up, to record, to replay
                self.begin_step()
                found = self._measure(trial.train, trial.validate)
        for as_it_is, compiled, limit in zip(trial.expected, found, trial.limits, strict=True):
            if not _close(as_it_is, compiled, limit):
                raise ArithmeticError(f"it computes {compiled:.6g} where the network as it is computes {as_it_is:.6g}")

    def _measure(self, train: Forward, validate: Forward | None) -> tuple[float, float, float]:
        """Loss, norm of its gradients, and loss in validation (0 without one)."""
        loss = train()
        gradients = [p.grad for p in self._network.parameters() if p.grad is not None]
        norm = torch.stack([gradient.float().norm() for gradient in gradients]).norm()
        self._network.zero_grad(set_to_none=True)
        return float(loss), float(norm), 0.0 if validate is None else self._validated(validate)

    def _validated(self, validate: Forward) -> float:
        modes = [(module, module.training) for module in self._network.modules()]
        self._network.eval()
        try:
            return float(validate())
        finally:
            for module, training in modes:
                module.training = training

    def _switch_off(self) -> None:
        for module in self._modules:
            module._compiled_call_impl = None
        self._network.zero_grad(set_to_none=True)
        torch._dynamo.reset()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Trial:
    """A step, what it computes as the network is, and by which share that may differ."""

    train: Forward
    validate: Forward | None
    expected: tuple[float, float, float]
    limits: tuple[float, float, float]


class _Undone:
    """Within, random numbers may be drawn and statistics of a network be updated: it is all as before at the end."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._fork = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        self._buffers: Sequence[Tensor] = list(network.buffers())

    def __enter__(self) -> None:
        self._kept = [buffer.clone() for buffer in self._buffers]
        self._fork.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            buffer.copy_(kept)


def _reason(error: BaseException) -> str:
    """What a failure began with, in a line."""
    while (inner := getattr(error, "inner_exception", None) or error.__cause__) is not None:
        error = inner
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def _close(expected: float, found: float, limit: float) -> bool:
    """Whether the second differs from the first, if that is finite, by no more than a share of it, or of 0.1."""
    if not math.isfinite(expected):
        return True
    return math.isfinite(found) and abs(found - expected) <= limit * max(abs(expected), 0.1)
