"""Trainings on the sample, through the program: what MLflow and TensorBoard have of them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from segplug_track.journal import Journal
from segplug_track.state import read_state

from segplug.sample import DATASET

from .conftest import PLANS, Segplug
from .stores import event_steps, events, mlflow_artifacts, mlflow_runs, mlflow_steps

NAME = f"{DATASET}/nnUNetTrainer__{PLANS}__2d/fold_0"


def test_a_training_is_tracked(segplug: Segplug, store: str) -> None:
    segplug.options(f'mlflow = "{store}"\nexperiment = "hippocampus"\npatience = 300')
    done = segplug(*segplug.training, "--epochs", "3", "--seed", "7")
    assert "tracking" not in done.stderr
    tracking = segplug.fold / "tracking"
    told = [entry for entry in Journal(tracking).entries() if entry["kind"] == "epoch"]
    summary = json.loads((segplug.fold / "validation" / "summary.json").read_text())

    (run,) = mlflow_runs(store, "hippocampus")
    assert (run.info.run_name, run.info.status) == (NAME, "FINISHED")
    for name in ("loss/train", "loss/val", "pseudo_dice_mean", "pseudo_dice_ema", "learning_rate", "epoch_seconds"):
        assert mlflow_steps(store, run, name) == [0, 1, 2]
    assert run.data.metrics["loss/train"] == told[-1]["train_loss"]
    assert run.data.metrics["validation_mean/Dice"] == summary["foreground_mean"]["Dice"]
    assert run.data.metrics["validation_Dice/Anterior"] == summary["mean"]["1"]["Dice"]
    expected = {"dataset": DATASET, "configuration": "2d", "fold": "0", "plans": PLANS, "seed": "7"}
    expected |= {"trainer": "builtin:short", "trainer.batch_size": "2", "epochs": "3", "validation_cases": "1"}
    assert expected.items() <= run.data.params.items()
    fingerprint = (segplug.fold.parent / "dataset_fingerprint.json").read_bytes()
    assert run.data.tags["segplug.fingerprint"] == hashlib.sha256(fingerprint).hexdigest()
    assert run.data.tags["segplug.version.segplug"] == "0.1.0"
    artifacts = mlflow_artifacts(store, run)
    names = {"plans.json", "dataset.json", "dataset_fingerprint.json", "progress.png", "provenance.json", "split.json"}
    assert names | {"validation/summary.json"} <= artifacts
    assert any(name.startswith("training_log_") for name in artifacts)

    read = events(tracking)
    assert [event.step for event in read.Scalars("loss/train")] == [0, 1, 2]
    assert read.Scalars("loss/train")[2].value == pytest.approx(told[2]["train_loss"], rel=1e-6)
    assert read.Scalars("validation_mean/Dice")[0].value == pytest.approx(summary["foreground_mean"]["Dice"], rel=1e-6)
    (picture,) = read.Images("progress")
    assert picture.encoded_image_string == (segplug.fold / "progress.png").read_bytes()
    (settings,) = read.Tensors("settings")
    assert b"| seed | 7 |" in settings.tensor_proto.string_val[0]
    assert {"pseudo_dice/Anterior", "pseudo_dice/Posterior"} <= set(read.Tags()["scalars"])

    # a training anew is another run; what was there went aside with its fold
    segplug(*segplug.training, "--epochs", "1")
    statuses = [(run.info.status, run.data.params["epochs"]) for run in mlflow_runs(store, "hippocampus")]
    assert sorted(statuses) == [("FINISHED", "1"), ("FINISHED", "3")]
    assert event_steps(tracking, "loss/train") == [0]
    (previous,) = segplug.fold.parent.glob("previous_fold_0_*")
    assert event_steps(previous / "tracking", "loss/train") == [0, 1, 2]


def test_a_training_killed_twice_goes_on_in_the_same_run(segplug: Segplug, store: str) -> None:
    """The second time together with the processes that deliver, as when the machine goes down."""
    segplug.options(f'mlflow = "{store}"\npatience = 300')
    epochs = 20
    words = (*segplug.training, "--epochs", str(epochs))
    kill_after(segplug, words, 4, and_children=False)
    until = time.monotonic() + 170
    while read_state(segplug.fold / "tracking", "mlflow").ended != "killed":
        assert time.monotonic() < until
        time.sleep(0.1)
    (run,) = mlflow_runs(store)
    assert run.info.status == "KILLED"
    first = mlflow_steps(store, run, "loss/train")
    assert first == list(range(len(first)))
    assert 4 <= len(first) < epochs

    kill_after(segplug, (*words, "--continue"), len(first) + 4, and_children=True)
    done = segplug(*words, "--continue", "--set", "trainer.lr=0.02")
    assert "tracking" not in done.stderr

    (run,) = mlflow_runs(store)
    assert run.info.status == "FINISHED"
    for name in ("loss/train", "pseudo_dice/Anterior", "learning_rate"):
        assert mlflow_steps(store, run, name) == list(range(epochs))
        assert event_steps(segplug.fold / "tracking", name) == list(range(epochs))
    assert mlflow_steps(store, run, "validation_mean/Dice") == [epochs - 1]
    changed = {name: value for name, value in run.data.tags.items() if name.endswith(".trainer.lr")}
    assert list(changed.values()) == ["0.02"]
    assert run.data.params["trainer.lr"] != "0.02"
    # each epoch is the one that the model was trained with, which the program's own log says
    log = "".join(file.read_text() for file in sorted(segplug.fold.glob("training_log_*.txt")))
    for event in events(segplug.fold / "tracking").Scalars("loss/train"):
        assert f"epoch {event.step}: train_loss {event.value:.4f}" in log


def kill_after(segplug: Segplug, words: tuple[str, ...], epochs: int, and_children: bool) -> None:
    """Kill a training when this number of epochs is in a checkpoint."""
    journal = Journal(segplug.fold / "tracking")
    with segplug.start(*words) as process:
        until = time.monotonic() + 170
        while not any(entry["kind"] == "saved" and entry["epochs"] >= epochs for entry in journal.entries()):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True) if and_children else []
        for each in (process, *children):
            each.send_signal(signal.SIGKILL)
        process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_refuses_is_told_later(segplug: Segplug, store: str) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    segplug.options(f'mlflow = "{address}"\ntensorboard = false')
    done = segplug(*segplug.training, "--epochs", "2")
    assert done.stderr.count("warning: tracking by mlflow fails") == 1
    assert "segplug track push" in done.stderr
    assert (segplug.fold / "validation" / "summary.json").is_file()
    failed = segplug("track", "push", code=1)
    assert "mlflow: " in failed.stderr
    assert "Traceback" not in failed.stderr

    port = address.rpartition(":")[2]
    places = ("--backend-store-uri", store, "--artifacts-destination", f"{segplug.folder}/artifacts")
    with subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1", *places],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=segplug.folder,
        env=dict(os.environ),
    ) as server:
        try:
            until = time.monotonic() + 400
            while not answers(int(port)):
                assert time.monotonic() < until
                time.sleep(0.2)
            assert "delivered: 1 runs, mlflow" in segplug("track", "push").stdout
            (run,) = mlflow_runs(address)
            assert "plans.json" in mlflow_artifacts(address, run)
        finally:
            for child in psutil.Process(server.pid).children(recursive=True):
                child.terminate()
            server.terminate()
    (run,) = mlflow_runs(store)
    assert (run.info.run_name, run.info.status) == (NAME, "FINISHED")
    assert mlflow_steps(store, run, "loss/train") == [0, 1]


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_server_that_hangs_costs_the_patience(segplug: Segplug) -> None:
    """A socket that is listened to and never answered."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        segplug.options(f'mlflow = "http://127.0.0.1:{silent.getsockname()[1]}"\ntensorboard = false\npatience = 1')
        done = segplug(*segplug.training, "--epochs", "2")
        ended = time.time()
    assert done.stderr.count("warning: tracking by mlflow fails") == 1
    journal = Journal(segplug.fold / "tracking")
    assert [entry["epoch"] for entry in journal.entries() if entry["kind"] == "epoch"] == [0, 1]
    # MLflow itself would have tried for a minute
    assert ended - next(entry["time"] for entry in journal.entries() if entry["kind"] == "end") < 40


def test_a_full_disk_costs_the_tracking_alone(segplug: Segplug) -> None:
    tracking = segplug.fold / "tracking"
    tracking.mkdir(parents=True)
    Journal(tracking).file.symlink_to("/dev/full")
    segplug.options("")
    done = segplug(*segplug.training, "--epochs", "2", "--continue")
    assert done.stderr.count("No space left on device") == 1
    assert "entries are lost" in done.stderr
    assert (segplug.fold / "validation" / "summary.json").is_file()


def test_evaluations_and_the_choice(segplug: Segplug, store: str) -> None:
    segplug.options(f'mlflow = "{store}"\npatience = 300')
    segplug(*segplug.training, "--epochs", "1")
    done = segplug("select", "4", "-c", "2d", "-f", "0")
    assert "tracking" not in done.stderr
    kinds = {run.data.tags["segplug.kind"]: run for run in mlflow_runs(store)}
    assert {"training", "choice"} <= kinds.keys()
    choice = kinds["choice"]
    assert choice.info.status == "FINISHED"
    assert choice.data.params["members"] == json.dumps([segplug.fold.parent.name])
    (folder,) = segplug.fold.parent.glob("crossval_results_folds_*")
    summary = json.loads((folder / "summary.json").read_text())
    assert choice.data.metrics["evaluation_mean/Dice"] == summary["foreground_mean"]["Dice"]
    assert choice.data.metrics["chosen_mean_dice"] == summary["foreground_mean"]["Dice"]
    assert {"choice.json", "summary.json"} <= mlflow_artifacts(store, choice)
    assert events(folder / "tracking").Scalars("chosen_mean_dice")[0].value == pytest.approx(
        summary["foreground_mean"]["Dice"], rel=1e-6
    )
    # the folders are as good as before for whatever reads them
    again = segplug("select", "4", "-c", "2d", "-f", "0")
    assert again.stdout == done.stdout
    assert read_state(folder / "tracking", "mlflow").problem == ""
    assert Path(choice.data.tags["segplug.folder"]) == folder
