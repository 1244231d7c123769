"""Processes that train together make what one process makes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from together import TRAININGS, fold_of  # noqa: E402 - the program beside this file


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def trained(
    prepared: Path, prepared_sparse: Path, prepared_sparse_regions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """Folders with the results of one process, of two and of three."""
    data = {"labels": prepared, "sparse": prepared_sparse, "sparse regions": prepared_sparse_regions}
    folders, running = {}, []
    for name, count in (("one", 1), ("two", 2)):
        folders[name] = tmp_path_factory.mktemp(name)
        for kind, folder in data.items():
            (folders[name] / f"data {kind}").symlink_to(folder)
        ports = ",".join(map(str, free_ports(len(TRAININGS))))
        for rank in range(count):
            program = [sys.executable, str(HERE / "together.py"), str(folders[name]), str(rank), str(count), ports]
            running.append(subprocess.Popen(program, stderr=subprocess.PIPE, text=True))
    try:
        for process in running:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return folders


def checkpoint(results: Path) -> dict:
    return torch.load(fold_of(results) / "checkpoint_final.pth", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_make_the_losses_and_weights_of_one(trained, name):
    one, two = (checkpoint(trained[count] / name) for count in ("one", "two"))
    for key in ("train_losses", "val_losses", "ema_fg_dice"):
        assert two["logging"][key] == pytest.approx(one["logging"][key], rel=0, abs=1e-5, nan_ok=True), key
    assert one["network_weights"].keys() == two["network_weights"].keys()  # no `module.`
    for key, tensor in one["network_weights"].items():
        torch.testing.assert_close(two["network_weights"][key], tensor, rtol=0, atol=1e-5, msg=key)
    assert (one["current_epoch"], one.get("stopped_early")) == (two["current_epoch"], two.get("stopped_early"))
    assert one["optimizer_state"]["state"].keys() == two["optimizer_state"]["state"].keys()  # of the same weights
    summaries = [json.loads((fold_of(trained[c] / name) / "validation" / "summary.json").read_text()) for c in trained]
    assert summaries[0]["foreground_mean"] == pytest.approx(summaries[1]["foreground_mean"], abs=1e-4)


@pytest.mark.slow
def test_the_first_process_alone_writes_and_tells(trained):
    name = "labels"
    fold = fold_of(trained["two"] / name)
    (log,) = fold.glob("training_log_*.txt")
    assert "2 processes, samples of a batch in each: 1, 1" in log.read_text()
    folds = [fold_of(trained[count] / name) for count in trained]
    files = [sorted(path.name for path in fold.rglob("*") if path.suffix != ".txt") for fold in folds]
    assert files[0] == files[1]
    told = [json.loads((trained[c] / f"{name} 0.json").read_text()) for c in trained]
    assert sorted(told[0]) == sorted(told[1])  # cases that the second process predicted are told too
    assert json.loads((trained["two"] / f"{name} 1.json").read_text()) == []
