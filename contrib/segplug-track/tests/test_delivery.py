"""Processes that deliver, killed and disturbed: whatever they are told is in the destination once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from segplug_track.delivery import Delivery
from segplug_track.journal import FOLDER, Journal
from segplug_track.options import MLFLOW, TENSORBOARD, Options
from segplug_track.state import read_state

from .conftest import Segplug
from .stores import event_steps, events, mlflow_runs, mlflow_steps

EPOCHS = 40


def write_journal(folder: Path, epochs: int = EPOCHS, ended: bool = True) -> Path:
    """The journal of a training; returns its folder `tracking`."""
    journal = Journal(folder / FOLDER)
    start: dict[str, Any] = {"epochs_done": 0, "continued": False, "classes": [[1, "a/b"], [2, "a b"]]}
    start |= {"params": {"seed": 1}, "versions": {"segplug": "0"}, "fingerprint": "f", "provenance": [], "split": {}}
    journal.append("start", **start)
    for epoch in range(epochs):
        values = {"train_loss": -epoch, "val_loss": 0.5, "learning_rate": 0.01, "seconds": 1.0, "extra": {"grad": 2.0}}
        journal.append("epoch", epoch=epoch, mean_dice=0.5, ema_dice=0.5, dice=[0.25, float("nan")], **values)
        journal.append("saved", epochs=epoch + 1)
    if ended:
        journal.append("end", error="")
    return journal.folder


def deliver(options: Options, destination: str, tracking: Path, code: int = 0) -> str:
    """Deliver to the end; what went wrong."""
    delivery = Delivery.start(options, destination, [tracking], follow=False)
    assert delivery.process.wait(300) == code, (tracking / f"{destination}.log").read_text()
    return delivery.problem()


@pytest.fixture
def sqlite(store: str) -> Options:
    return Options(mlflow=store)


@pytest.mark.parametrize("destination", [TENSORBOARD, MLFLOW])
def test_a_process_killed_at_any_moment_costs_nothing_and_doubles_nothing(
    tmp_path: Path, sqlite: Options, destination: str
) -> None:
    tracking = write_journal(tmp_path / "fold_0")
    for part in (10, 25):
        delivery = Delivery.start(sqlite, destination, [tracking], follow=False)
        while read_state(tracking, destination).delivered < part and not delivery.is_over:
            time.sleep(0.002)
        delivery.process.kill()
        delivery.process.wait()
    assert 25 <= read_state(tracking, destination).delivered < EPOCHS
    assert deliver(sqlite, destination, tracking) == ""
    assert steps(sqlite, tracking, destination) == list(range(EPOCHS))


@pytest.mark.parametrize("destination", [TENSORBOARD, MLFLOW])
def test_the_destination_itself_knows_what_it_has(tmp_path: Path, sqlite: Options, destination: str) -> None:
    """Even where all that was written down of it is lost."""
    tracking = write_journal(tmp_path / "fold_0", 3, ended=False)
    assert deliver(sqlite, destination, tracking) == ""
    (tracking / f"{destination}.json").write_text("{")
    journal = Journal(tracking)
    journal.append("end", error="")
    assert deliver(sqlite, destination, tracking) == ""
    assert steps(sqlite, tracking, destination) == [0, 1, 2]


def steps(options: Options, tracking: Path, destination: str) -> list[int]:
    if destination == TENSORBOARD:
        return event_steps(tracking, "loss/train")
    assert options.mlflow is not None
    (run,) = mlflow_runs(options.mlflow)
    assert run.info.status == "FINISHED"
    return mlflow_steps(options.mlflow, run, "loss/train")


def test_names_of_classes_that_are_alike_stay_apart(tmp_path: Path) -> None:
    tracking = write_journal(tmp_path / "fold_0", 1)
    line = '"dice": [0.25, NaN]'
    text = Journal(tracking).file.read_text()
    assert line in text
    Journal(tracking).file.write_text(text.replace(line, '"dice": [0.25, 0.75]'))
    assert deliver(Options(), TENSORBOARD, tracking) == ""
    read = events(tracking)
    assert read.Scalars("pseudo_dice/a_b")[0].value == 0.25
    assert read.Scalars("pseudo_dice/a_b_2")[0].value == 0.75


def test_what_is_not_defined_is_not_plotted(tmp_path: Path) -> None:
    tracking = write_journal(tmp_path / "fold_0", 1)
    assert deliver(Options(), TENSORBOARD, tracking) == ""
    tags = events(tracking).Tags()["scalars"]
    assert "pseudo_dice/a_b" in tags
    assert "pseudo_dice/a_b_2" not in tags
    assert "extra/grad" in tags


def test_another_place_is_told_everything(tmp_path: Path, sqlite: Options) -> None:
    tracking = write_journal(tmp_path / "fold_0", 2)
    assert deliver(sqlite, MLFLOW, tracking) == ""
    assert deliver(Options(mlflow=sqlite.mlflow, experiment="liver"), MLFLOW, tracking) == ""
    assert sqlite.mlflow is not None
    for experiment in ("segplug", "liver"):
        (run,) = mlflow_runs(sqlite.mlflow, experiment)
        assert mlflow_steps(sqlite.mlflow, run, "loss/train") == [0, 1]
    assert (tmp_path / "mlartifacts").is_dir()


def test_a_library_that_raises_is_quoted(tmp_path: Path) -> None:
    tracking = write_journal(tmp_path / "fold_0", 1)
    problem = deliver(Options(mlflow="carrier-pigeon://me:secret@roof"), MLFLOW, tracking)
    assert "carrier-pigeon" in problem
    assert "secret" not in problem
    assert "secret" not in (tracking / "mlflow.json").read_text()


def test_a_library_that_is_missing_is_named(tmp_path: Path) -> None:
    """An environment with everything that this one has, by links, but MLflow."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    there = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    for root in (Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")):
        for entry in root.iterdir():
            if not entry.name.startswith("mlflow") and not (there / entry.name).exists():
                (there / entry.name).symlink_to(entry)
    tracking = write_journal(tmp_path / "fold_0", 2)
    segplug = Segplug(tmp_path, tmp_path / "env" / "bin" / "python")
    segplug.options('mlflow = "http://127.0.0.1:1"')
    failed = segplug("track", "push", tmp_path, code=1)
    assert "pip install 'segplug-track[mlflow]'" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert event_steps(tracking, "loss/train") == [0, 1]


def test_a_full_disk_leaves_no_half_record(tmp_path: Path) -> None:
    """A limit of the system on the size of files stands for the disk."""
    tracking = write_journal(tmp_path / "fold_0", EPOCHS)
    told = {"options": {}, "destination": TENSORBOARD, "folders": [str(tracking)], "parent": None}
    limited = f"ulimit -f 2; exec '{sys.executable}' -m segplug_track.deliver"  # of 1024 bytes
    subprocess.run(["bash", "-c", limited], input=json.dumps(told), text=True, check=True, timeout=300)
    assert "File too large" in read_state(tracking, TENSORBOARD).problem
    before = event_steps(tracking, "loss/train")
    assert before == list(range(len(before)))
    assert 0 < len(before) < EPOCHS
    assert deliver(Options(), TENSORBOARD, tracking) == ""
    assert event_steps(tracking, "loss/train") == list(range(EPOCHS))


@pytest.fixture
def training() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing but start another, as a training does, and wait."""
    code = """
import sys, time
from pathlib import Path
from segplug_track.delivery import Delivery
from segplug_track.options import Options
delivery = Delivery.start(Options(), "tensorboard", [Path(sys.stdin.readline().strip())], follow=True)
print(delivery.process.pid, flush=True)
time.sleep(300)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_process_ends_when_its_training_is_killed(tmp_path: Path, training: subprocess.Popen[bytes]) -> None:
    tracking = write_journal(tmp_path / "fold_0", 2, ended=False)
    assert training.stdin is not None
    assert training.stdout is not None
    training.stdin.write(f"{tracking}\n".encode())
    training.stdin.flush()
    follower = int(training.stdout.readline())
    wait_for(lambda: read_state(tracking, TENSORBOARD).delivered == 3)
    journal = Journal(tracking)
    journal.append("epoch", **{**epoch_of(tracking), "epoch": 2})
    journal.append("saved", epochs=3)
    wait_for(lambda: read_state(tracking, TENSORBOARD).delivered == 4)
    training.send_signal(signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{follower}"))
    assert read_state(tracking, TENSORBOARD).ended == "killed"
    assert event_steps(tracking, "loss/train") == [0, 1, 2]


def test_a_process_leaves_another_run_alone(tmp_path: Path, training: subprocess.Popen[bytes]) -> None:
    """One that follows the journal of a fold which is trained anew in the same place."""
    tracking = write_journal(tmp_path / "fold_0", 2, ended=False)
    assert training.stdin is not None
    assert training.stdout is not None
    training.stdin.write(f"{tracking}\n".encode())
    training.stdin.flush()
    follower = int(training.stdout.readline())
    wait_for(lambda: read_state(tracking, TENSORBOARD).delivered == 3)
    Journal(tracking).set_aside()
    write_journal(tmp_path / "fold_0", 5, ended=False)
    wait_for(lambda: not os.path.exists(f"/proc/{follower}") or _is_zombie(follower))
    assert not (tracking / "tensorboard").exists()


def epoch_of(tracking: Path) -> dict[str, Any]:
    found = next(entry for entry in Journal(tracking).entries() if entry["kind"] == "epoch")
    return {name: value for name, value in found.items() if name not in ("kind", "time")}


def _is_zombie(process: int) -> bool:
    return "State:\tZ" in Path(f"/proc/{process}/status").read_text()


def wait_for(what: Any, seconds: float = 170.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)
