"""A run in TensorBoard: event files in `tracking/tensorboard`, written without torch or TensorFlow."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug_track.journal import Entry
from segplug_track.scalars import scalars

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""Colour type of a PNG file (PNG specification, 11.2.2) -> number of channels."""


class TensorboardRun:
    """Implements `segplug_track.deliver.Destination`.

    An entry is one record, which is there whole or not at all: the files themselves tell which entries they have.

    Args:
        folder: `tracking`, in the run's own folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.parent
        events = folder / "tensorboard"
        events.mkdir(exist_ok=True)
        self.run = str(events.absolute())
        self.delivered = sum(map(_records, events.glob("*tfevents*")))
        # TensorBoard reads a run's files in the order of their names
        self._file = events / f"events.out.tfevents.{time.time_ns()}.segplug"

    def tell(self, entry: Entry) -> None:
        """Tell one entry; it is in the file then."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars(entry).items()]
        if entry["kind"] == "start":
            told = {**entry["params"], **entry["versions"], "fingerprint": entry["fingerprint"]}
            used = {f"{each.get('kind')} {each.get('name')}": _origin(each) for each in entry["provenance"]}
            values += [_text("settings", _table(told)), _text("plugins", _table(used))]
            plans = self._folder.parent / "plans.json"
            if plans.is_file():
                values.append(_text("plans", "".join(f"    {line}\n" for line in plans.read_text().splitlines())))
        elif entry["kind"] == "chosen":
            values.append(_text("chosen", _table({name: entry[name] for name in ("dataset", "members", "folds")})))
        elif entry["kind"] == "end":
            values += _picture("progress", self._folder / "progress.png")
            if entry["error"]:
                values.append(_text("error", entry["error"]))
        event = Event(wall_time=entry["time"], step=entry["step"], summary=Summary(value=values))
        first = [] if self._file.exists() else [Event(wall_time=entry["time"], file_version="brain.Event:2")]
        self._write([*first, event])

    def close(self, ending: str) -> None:
        """The files tell nothing of how a run ended."""

    def _write(self, events: list[Event]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        size = self._file.stat().st_size if self._file.exists() else 0
        try:
            with self._file.open("ab") as file:
                writer = RecordWriter(file)
                for event in events:
                    writer.write(event.SerializeToString())
        except OSError:
            if size:
                with self._file.open("ab") as file:
                    file.truncate(size)
            else:
                self._file.unlink(missing_ok=True)
            raise


def _records(file: Path) -> int:
    """Number of whole entries in a file."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    return sum(event.HasField("summary") for event in LegacyEventFileLoader(str(file)).Load())


def _text(name: str, markdown: str) -> Summary.Value:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=shape)
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary.Value(tag=name, tensor=tensor, metadata=metadata)


def _picture(name: str, file: Path) -> list[Summary.Value]:
    """A PNG file, if it is there."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    content = file.read_bytes() if file.is_file() else b""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return []
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    channels = CHANNELS.get(content[25], 3)
    image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=content)
    return [Summary.Value(tag=name, image=image)]


def _origin(entry: Mapping[str, Any]) -> str:
    return " ".join(str(entry[key]) for key in ("plugin", "distribution", "version") if entry.get(key))


def _table(values: Mapping[str, Any]) -> str:
    """Markdown."""
    rows = [f"| {name} | {value if isinstance(value, str) else json.dumps(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])
