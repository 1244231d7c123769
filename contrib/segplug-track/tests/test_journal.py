"""What is told of a journal, however the training that wrote it was interrupted."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segplug_track.journal import FOLDER, Entry, Journal, ending, to_deliver


def start(done: int) -> dict[str, Any]:
    return {"kind": "start", "epochs_done": done, "classes": [[1, "liver"]]}


def told(entries: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(entry["kind"], entry["step"], entry.get("value")) for entry in to_deliver(entries)]


def interrupted(chance: random.Random, epochs: int) -> list[dict[str, Any]]:
    """The journal of a training that was killed at any moment, any number of times.

    `value` counts how often an epoch was done.
    """
    entries: list[dict[str, Any]] = []
    on_disk, times = 0, dict.fromkeys(range(epochs), 0)
    while True:
        entries.append(start(on_disk))
        for epoch in range(on_disk, epochs):
            times[epoch] += 1
            entries.append({"kind": "epoch", "epoch": epoch, "value": times[epoch]})
            if chance.random() < 0.15:
                break
            if chance.random() < 0.7:
                on_disk = epoch + 1
                if chance.random() < 0.15:
                    break  # the checkpoint is there, and the plugin was not told
                entries.append({"kind": "saved", "epochs": on_disk})
        else:
            return [*entries, {"kind": "end", "error": ""}]


def test_every_epoch_comes_once() -> None:
    for seed in range(200):
        entries = interrupted(random.Random(seed), 12)
        steps = [entry["epoch"] for entry in to_deliver(entries) if entry["kind"] == "epoch"]
        assert steps == list(range(12)), f"seed {seed}"


def test_what_was_told_stays_when_the_journal_grows() -> None:
    for seed in range(30):
        entries = interrupted(random.Random(seed), 12)
        whole = told(entries)
        for length in range(len(entries)):
            part = told(entries[:length])
            assert part == whole[: len(part)], f"seed {seed}"


def test_the_epoch_that_the_checkpoint_has_is_the_one_told() -> None:
    lost, kept = ({"kind": "epoch", "epoch": 0, "value": value} for value in ("lost", "kept"))
    assert told([start(0), lost, start(0), kept, {"kind": "saved", "epochs": 1}])[-1] == ("epoch", 0, "kept")


def test_epochs_without_a_checkpoint_are_not_told_when_the_training_failed() -> None:
    entries = [start(0), {"kind": "epoch", "epoch": 0}, {"kind": "end", "error": "no space left"}]
    assert [kind for kind, *_ in told(entries)] == ["start", "end"]


def test_evaluations_are_numbered_where_nothing_was_trained() -> None:
    assert told([{"kind": kind} for kind in ("evaluated", "chosen", "evaluated")]) == [
        ("evaluated", 0, None),
        ("chosen", 0, None),
        ("evaluated", 1, None),
    ]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([start(0)], "killed"),
        ([start(0), {"kind": "end", "error": ""}], "finished"),
        ([start(0), {"kind": "end", "error": "KeyboardInterrupt"}], "killed"),
        ([start(0), {"kind": "end", "error": "a loss of NaN"}, {"kind": "evaluated"}], "failed"),
        ([start(0), {"kind": "end", "error": "a loss of NaN"}, start(3)], "killed"),
        ([{"kind": "evaluated"}], "finished"),
    ],
)
def test_how_a_run_ended(entries: list[Entry], expected: str) -> None:
    assert ending(entries) == expected


def test_a_line_that_was_cut_costs_itself_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / FOLDER)
    journal.append("first")
    with journal.file.open("ab") as file:
        file.write(b'{"kind": "half')
    assert [entry["kind"] for entry in journal.entries()] == ["run", "first"]
    Journal(tmp_path / FOLDER).append("second")
    assert [entry["kind"] for entry in journal.entries()] == ["run", "first", "second"]


def test_the_key_stays_and_another_run_has_another(tmp_path: Path) -> None:
    journal = Journal(tmp_path / FOLDER)
    assert journal.key() == ""
    journal.append("first")
    key = journal.key()
    again = Journal(tmp_path / FOLDER)
    again.append("second")
    assert again.key() == key != ""
    again.set_aside()
    other = Journal(tmp_path / FOLDER)
    other.append("first")
    assert other.key() not in ("", key)
    assert [folder.name.rpartition("_")[0].rstrip("_0123456789") for folder in tmp_path.glob("prev*")] == [
        "previous_tracking"
    ]


def test_numbers_of_other_libraries_are_taken(tmp_path: Path) -> None:
    journal = Journal(tmp_path / FOLDER)
    journal.append("epoch", dice=np.float32(0.5), loss=np.array(0.25), where=tmp_path)
    (_, entry) = journal.entries()
    assert (entry["dice"], entry["loss"], entry["where"]) == (0.5, 0.25, str(tmp_path))


def test_what_cannot_be_written_is_written_later(tmp_path: Path) -> None:
    journal = Journal(tmp_path / FOLDER)
    journal.folder.mkdir()
    journal.file.symlink_to("/dev/full")
    for kind in ("first", "second"):
        with pytest.raises(OSError, match="No space left"):
            journal.append(kind)
    assert journal.unwritten == 3  # the run's key too
    journal.file.unlink()
    journal.append("third")
    assert [entry["kind"] for entry in journal.entries()] == ["run", "first", "second", "third"]
    assert journal.unwritten == 0
