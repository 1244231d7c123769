"""What code for a GPU is tested with where there is none.

On torch's `meta` device tensors have a shape and no values: code takes the ways that it takes on a GPU, and whatever
has to know a value fails. `forbid_waiting` sees the rest: copies that wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")

NEEDS_VALUES = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "_unique2", "unique_dim", "equal")
"""Operations whose result, or its size, the host has to know at once."""


class WaitingError(AssertionError):
    """Something would have waited for the device."""


class ForbidWaiting(TorchDispatchMode):
    """Fails at an operation for which a host would wait for its device.

    Args:
        device: type of the device that is not to be waited for.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.sent = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # there, operations come that are made of others
            with self:
                made_of_others = func.decompose(*args, **kwargs)
            if made_of_others is not NotImplemented:
                return made_of_others
        name = func._schema.name.removeprefix("aten::")
        on_device = [t for t in args if isinstance(t, torch.Tensor) and t.device.type == self.device]
        if name in NEEDS_VALUES and on_device:
            raise WaitingError(f"{name} waits for the device")
        if name == "index.Tensor" or (name == "index" and any(_is_mask(part) for part in args[1])):
            raise WaitingError("a mask as index waits for the device")
        if name in ("_to_copy", "copy_"):
            self._check_copy(name, args, kwargs)
        return func(*args, **kwargs)

    def _check_copy(self, name: str, args: Any, kwargs: Any) -> None:
        if name == "_to_copy":
            source, target = args[0].device.type, torch.device(kwargs.get("device") or args[0].device).type
            at_once = not kwargs.get("non_blocking", False)
        else:
            source, target = args[1].device.type, args[0].device.type
            at_once = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False)) and args[1].ndim > 0
        if source == target or self.device not in (source, target):
            return
        if source == self.device:
            raise WaitingError("a copy from the device waits for it")
        if at_once:
            raise WaitingError("a copy to the device waits for it, unless it is non_blocking")
        self.sent += 1


def _is_mask(part: Any) -> bool:
    return isinstance(part, torch.Tensor) and part.dtype == torch.bool


@pytest.fixture
def forbid_waiting() -> Callable[..., AbstractContextManager[ForbidWaiting]]:
    """Within, nothing waits for a device: `meta` unless another type is named. On CUDA torch watches too."""

    @contextmanager
    def forbidding(device: str = "meta") -> Iterator[ForbidWaiting]:
        with ForbidWaiting(device) as mode:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("error")
            try:
                yield mode
            finally:
                if device == "cuda":
                    torch.cuda.set_sync_debug_mode("default")

    return forbidding


@pytest.fixture(params=["meta", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """`meta`, and a GPU where there is one."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)
