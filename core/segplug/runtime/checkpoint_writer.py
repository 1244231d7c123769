"""Writes checkpoints whole or not at all, in the background if asked to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from segplug.errors import CheckpointError
from segplug.runtime.files import remove_partials, replacing

_PLAIN = (type(None), bool, int, float, str, torch.device)


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint; the file at `path` is the old one until the new one is whole on disk.

    Raises:
        CheckpointError: the disk is full, the folder cannot be written, ...; what was at `path` is still there.
        TypeError: `content` holds something that is neither a tensor nor a plain value.
    """
    _write(path, snapshot(content))


def snapshot(content: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in main memory that no further training step changes, of tensors and plain Python values alone.

    Tensors that share memory (one weight under two names) share it in the copy too. NumPy's numbers and arrays become
    Python's, paths become text.

    Raises:
        TypeError: there is something else in it; the message says where.
    """
    copies: dict[tuple[Any, ...], torch.Tensor] = {}

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()
        key = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if key not in copies or not tensor.numel():
            copies[key] = tensor.to("cpu", copy=True)
        return copies[key]

    def plain(value: Any, where: str) -> Any:
        if isinstance(value, torch.Tensor):
            return copied(value)
        if type(value) in _PLAIN:
            return value
        if isinstance(value, Mapping):
            return {plain(k, f"key of {where}"): plain(v, f"{where}[{k!r}]") for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            items = [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
            return tuple(items) if isinstance(value, tuple) else items
        if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
            return plain(value.tolist(), where)
        if isinstance(value, Path):
            return str(value)
        raise TypeError(
            f"checkpoint: {where} is a {type(value).__name__}; expected tensors, numbers, texts, dicts, lists"
        )

    return {str(key): plain(value, str(key)) for key, value in content.items()}


class CheckpointWriter:
    """Writes checkpoints in one background thread, in the order in which they were given.

    At most two wait at a time, so that a slow disk slows the training rather than fill the memory. An error is raised
    at the next call. Used as a context manager it waits at the end.
    """

    def __init__(self, waiting: int = 2) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: deque[Future[None]] = deque()
        self._waiting = waiting

    def submit(self, path: Path, content: Mapping[str, Any], written: Callable[[], None] | None = None) -> None:
        """Copy `content` and write it soon. `written` is called in the background thread when the file is whole.

        Raises:
            CheckpointError: an earlier checkpoint could not be written.
            TypeError: see `snapshot`.
        """
        self._settle(self._waiting - 1)
        self._pending.append(self._thread.submit(_write, path, snapshot(content), written))

    def wait(self) -> None:
        """Return when everything is on disk.

        Raises:
            CheckpointError: a checkpoint could not be written.
        """
        self._settle(0)

    def close(self) -> None:
        """Wait, then end the thread. Raises as `wait` does."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _settle(self, most: int) -> None:
        while self._pending and (len(self._pending) > most or self._pending[0].done()):
            self._pending.popleft().result()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _write(path: Path, content: Mapping[str, Any], written: Callable[[], None] | None = None) -> None:
    remove_partials(path)
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            # to a file object: torch would write the name of a path into the file, and no two would be the same
            torch.save(dict(content), file)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n", 1)[0]
        raise CheckpointError(
            f"{path}: the checkpoint cannot be written: {reason}. What was there before is kept; make room or give the "
            "folder write access, then continue the training"
        ) from error
    if written is not None:
        written()
