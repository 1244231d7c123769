"""`segplug train --processes 2` and torchrun: one message, an exit code, no hang; and going on where it stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from segplug.cli.main import main
from segplug.cli.processes import processes_here
from segplug.errors import UsageError
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.device import resolve_device
from segplug.runtime.processes import ALONE, Processes

NAME, PLANS = "Dataset601_Phantom", "tinyPlans"
TRAIN = ("train", NAME, "3d_fullres", "0", "-p", PLANS, "--device", "cpu", "--precision", "fp32", "--workers", "1")
SGD = ("--set", "trainer.optimizer=sgd", "--set", "trainer.iterations_per_epoch=2")


class Command:
    """`segplug` over prepared data, in a process and session of its own."""

    def __init__(
        self, data: Path, results: Path, *arguments: str, program: tuple[str, ...] = ("-m", "segplug")
    ) -> None:
        self.results = results
        roots = {"SEGPLUG_RAW": data / "raw", "SEGPLUG_PREPROCESSED": data / "preprocessed", "SEGPLUG_RESULTS": results}
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            env={**os.environ, **{name: str(folder) for name, folder in roots.items()}, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def fold(self) -> Path:
        return self.results / NAME / f"nnUNetTrainer__{PLANS}__3d_fullres" / "fold_0"

    def wait_for_epochs(self, epochs: int) -> None:
        """Until a checkpoint of so many is written."""
        file, end = self.fold / "checkpoint_latest.pth", time.monotonic() + 300
        while not (file.is_file() and read_checkpoint(file).epochs_done >= epochs):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)

    def workers(self) -> list[psutil.Process]:
        """The processes that train, in the order of their ranks."""
        children = psutil.Process(self.process.pid).children()
        return sorted((child for child in children if "train" in child.cmdline()), key=lambda c: c.environ()["RANK"])

    def end(self) -> tuple[int, str]:
        """Exit code and errors."""
        try:
            _, errors = self.process.communicate(timeout=300)
        finally:
            self.process.kill()
        return self.process.returncode, errors


@pytest.mark.slow
def test_killed_interrupted_and_continued_is_uninterrupted(prepared: Path, tmp_path: Path) -> None:
    arguments = (*TRAIN, *SGD, "--epochs", "12", "--processes", "2")
    whole = Command(prepared, tmp_path / "whole", *arguments)
    code, errors = whole.end()
    assert code == 0, errors
    killed = Command(prepared, tmp_path / "parts", *arguments)
    killed.wait_for_epochs(2)
    ranks = killed.workers()
    ranks[1].kill()
    code, errors = killed.end()
    assert code == 1
    assert "error: process 1 of 2 was ended by signal 9 (SIGKILL" in errors
    assert "Traceback" not in errors
    assert not any(rank.is_running() for rank in ranks)
    interrupted = Command(prepared, tmp_path / "parts", *arguments, "--continue")
    interrupted.wait_for_epochs(5)
    ranks = interrupted.workers()
    interrupted.process.send_signal(signal.SIGINT)
    code, errors = interrupted.end()
    assert code == 130
    assert errors.count("interrupted; what is finished is kept, call again to go on") == 1
    assert "Traceback" not in errors
    assert not any(rank.is_running() for rank in ranks)
    continued = Command(prepared, tmp_path / "parts", *arguments, "--continue")
    assert continued.end()[0] == 0
    found, expected = (torch.load(c.fold / "checkpoint_final.pth", weights_only=True) for c in (continued, whole))
    for key, tensor in expected["network_weights"].items():
        assert torch.equal(found["network_weights"][key], tensor), key
    for key in ("train_losses", "val_losses", "ema_fg_dice"):
        assert found["logging"][key] == pytest.approx(expected["logging"][key], rel=0, abs=0, nan_ok=True)


@pytest.mark.slow
def test_torchrun_and_an_error_of_all(prepared: Path, tmp_path: Path) -> None:
    """Told once, and nothing is left behind."""
    program = ("-m", "torch.distributed.run", "--nproc-per-node", "3", "-m", "segplug")
    command = Command(prepared, tmp_path, *TRAIN, program=program)
    code, errors = command.end()
    assert code == 1  # torchrun's
    message = "usage error: a batch of 2 samples cannot be divided among 3 processes. Start at most 2"
    assert errors.count(message) == 1
    assert "process 1 of 3:" not in errors
    assert not command.fold.exists()


# --- what needs no processes -----------------------------------------------------------------------------------------

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "1",
}


def test_the_environment_of_torchrun() -> None:
    assert processes_here(TORCHRUN) == Processes(3, 4, 1, 2)
    for name in TORCHRUN:
        assert processes_here({key: value for key, value in TORCHRUN.items() if key != name}) == ALONE
    assert processes_here({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}) == ALONE
    with pytest.raises(UsageError, match="RANK=9"):
        processes_here({**TORCHRUN, "RANK": "9"})


@pytest.mark.parametrize("command", [["run", "601"], ["plan", "601"], ["predict", "-i", "a", "-o", "b", "-m", "c"]])
def test_other_commands_are_not_for_several(monkeypatch, capsys, command) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert (
        f"only 'segplug train' is for several; start segplug {command[0]} without torchrun" in capsys.readouterr().err
    )


def test_shares_are_neighbours_of_all_but_equal_size() -> None:
    for count in (1, 2, 3, 7):
        for total in (7, 8, 20):
            shares = [Processes(rank, count).share(total) for rank in range(count)]
            assert [sample for share in shares for sample in share] == list(range(total))
            assert Processes(0, count).sizes(total) == [len(share) for share in shares]
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("name", "gpus", "expected"),
    [
        ("auto", 2, "cuda:1"),
        ("cuda", 2, "cuda:1"),
        ("auto", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "2 processes on a machine with 1 GPUs"),
        ("cuda", 0, "2 processes on a machine with 0 GPUs"),
        ("cuda:0", 2, "Each takes a GPU of its own"),
        ("mps", 0, "several processes train on cpu or cuda"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(monkeypatch, name, gpus, expected) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    processes = Processes(3, 4, 1, 2)
    if " " in expected:
        with pytest.raises(UsageError, match=expected):
            resolve_device(name, processes)
    else:
        assert str(resolve_device(name, processes)) == expected
