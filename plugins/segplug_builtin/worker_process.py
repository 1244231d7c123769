"""What runs in a worker process of the local executor."""

from __future__ import annotations

import os
import pickle
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from queue import SimpleQueue


def serve(descriptor: int, modules: Sequence[str] = ()) -> None:
    """Work on items until the other end of the connection closes; then end at once, whatever is going on.

    A message is (run, pickled function or None if this run's is known, index, pickled item); the answer is
    (run, index, whether it succeeded, pickled value or error). An interrupt (SIGINT) is ignored from the start: the
    parent is interrupted too, and ends its workers.

    Args:
        modules: imported first, while there is nothing to do yet.
    """
    connection = Connection(descriptor)
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    for name in modules:
        with suppress(Exception):  # if it is needed, the work itself will tell
            import_module(name)
    known: tuple[int, bytes] = (-1, b"")
    while True:
        run, function, index, item = pickle.loads(inbox.get())
        if function is not None:
            known = (run, function)
        succeeded, answer = _work(known[1], item)
        connection.send_bytes(pickle.dumps((run, index, succeeded, answer), protocol=5))


def _receive(connection: Connection, inbox: SimpleQueue[bytes]) -> None:
    try:
        while True:
            inbox.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)  # the parent has closed or died: nobody wants the result


def _work(function: bytes, item: bytes) -> tuple[bool, bytes]:
    try:
        return True, pickle.dumps(pickle.loads(function)(pickle.loads(item)), protocol=5)
    except Exception as error:
        return False, _pickled_error(error)


def _pickled_error(error: Exception) -> bytes:
    """The error with its traceback as a note; as a RuntimeError if it cannot travel."""
    text = "".join(traceback.format_exception(error))
    error.add_note(f"In a worker process:\n{text}")
    try:
        pickled = pickle.dumps(error, protocol=5)
        pickle.loads(pickled)
    except Exception:
        return pickle.dumps(RuntimeError(text), protocol=5)
    return pickled
