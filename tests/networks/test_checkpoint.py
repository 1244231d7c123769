"""Checkpoints: what is read, what is refused, and that a file is there whole or not at all."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from segplug.errors import CheckpointError
from segplug.runtime.checkpoint import checkpoint_content, load_weights, read_checkpoint, without_prefixes
from segplug.runtime.checkpoint_writer import CheckpointWriter, snapshot, write_checkpoint


def content(network: nn.Module, **state: Any) -> dict[str, Any]:
    return checkpoint_content(
        network,
        plans={"plans_name": "p", "configurations": {}},
        configuration="2d",
        fold=0,
        dataset_json={"labels": {"background": 0}},
        trainer="nnUNetTrainer",
        mirror_axes=(0, 1),
        state={"optimizer_state": None, "current_epoch": 3, "logging": {}, "_best_ema": None, **state},
        extension={"seed": 7},
    )


def test_round_trip(tmp_path: Path) -> None:
    network = nn.Linear(2, 3)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "checkpoint_final.pth"
    write_checkpoint(path, content(network, optimizer_state=optimizer.state_dict(), _best_ema=np.float32(0.5)))
    for mapped in (False, True):
        read = read_checkpoint(path, mapped=mapped)
        assert (read.configuration, read.fold, read.trainer, read.epochs_done) == ("2d", 0, "nnUNetTrainer", 3)
        assert read.mirror_axes == (0, 1)
        assert read.extension["seed"] == 7
        assert read.extension["version"]
        assert read.state["_best_ema"] == 0.5
        again = nn.Linear(2, 3)
        load_weights(again, read.weights, "test")
        assert torch.equal(again.weight, network.weight)
        torch.optim.SGD(again.parameters(), 0.1).load_state_dict(read.state["optimizer_state"])


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    network = nn.Linear(2, 3)
    for name in ("a.pth", "b.pth"):
        write_checkpoint(tmp_path / name, content(network))
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_written_files_need_no_allow_list(tmp_path: Path) -> None:
    state = {"logging": {"train_losses": [np.float32(1.5), np.float64(2)], "flags": np.array([True, False])}}
    write_checkpoint(tmp_path / "c.pth", content(nn.Linear(1, 1), **state, folder=tmp_path))
    plain = torch.load(tmp_path / "c.pth", weights_only=True)
    assert plain["logging"] == {"train_losses": [1.5, 2.0], "flags": [True, False]}
    assert plain["folder"] == str(tmp_path)


def test_without_mirroring_nnunet_wants_none(tmp_path: Path) -> None:
    written = {**content(nn.Linear(1, 1)), "inference_allowed_mirroring_axes": None}
    write_checkpoint(tmp_path / "c.pth", written)
    assert read_checkpoint(tmp_path / "c.pth").mirror_axes == ()


def test_numpy_numbers_of_nnunet_become_plain_ones(tmp_path: Path) -> None:
    values = [np.float32(0.1), np.float64(0.2), np.float16(0.5), np.int64(-3), np.uint8(200), np.bool_(True)]
    values += [np.float32("nan"), np.dtype(">f4").type(1.5), np.array(2.5, ">f8")[()]]
    torch.save({**content(nn.Linear(1, 1)), "logging": values}, tmp_path / "c.pth")
    read = read_checkpoint(tmp_path / "c.pth").state["logging"]
    assert [type(v) for v in read] == [float, float, float, int, int, bool, float, float, float]
    np.testing.assert_array_equal(read, [float(v) for v in values])


def test_checkpoint_as_nnunetv2_writes_it(shared: Path) -> None:
    folder = shared / "reference/models/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlansTiny__3d_fullres"
    read = read_checkpoint(folder / "fold_0" / "checkpoint_final.pth")
    assert (read.configuration, read.fold, read.epochs_done, read.trainer) == ("3d_fullres", 0, 8, "nnUNetTrainer")
    assert read.mirror_axes == (0, 1, 2)
    assert read.extension == {}
    assert len(read.state["logging"]["mean_fg_dice"]) == 8
    assert all(isinstance(v, float) for v in read.state["logging"]["mean_fg_dice"])


class Evil:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@pytest.mark.parametrize("call", [(os.mkdir, "hacked"), (eval, "__import__('os').mkdir('hacked')"), (Path, "x")])
def test_code_in_a_file_is_named_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**content(nn.Linear(1, 1)), "extra": Evil(*call)}, tmp_path / "c.pth")
    with pytest.raises(
        CheckpointError, match=r"c\.pth: holds (posix\.mkdir|builtins\.eval|__builtin__\.eval|pathlib\.)"
    ):
        read_checkpoint(tmp_path / "c.pth")
    assert not (tmp_path / "hacked").exists()


def test_a_bare_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Evil(os.mkdir, "hacked")))
    with pytest.raises(CheckpointError, match=r"c\.pth"):
        read_checkpoint(tmp_path / "c.pth")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("dtype", [object, "U3", "datetime64[s]", "S4"])
def test_other_numpy_scalars_are_refused(tmp_path: Path, dtype: Any) -> None:
    value = Evil(np.array(1, np.float32)[()].__reduce__()[0], np.dtype(dtype), b"\0" * 12)
    torch.save({**content(nn.Linear(1, 1)), "extra": value}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"c\.pth"):
        read_checkpoint(tmp_path / "c.pth")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    write_checkpoint(path, content(nn.Linear(50, 50)))
    whole = path.read_bytes()
    for cut in (0, 3, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:cut])
        for mapped in (False, True):
            with pytest.raises(CheckpointError, match=r"c\.pth: damaged"):
                read_checkpoint(path, mapped=mapped)
    path.write_bytes(b"\0" * len(whole))
    with pytest.raises(CheckpointError, match=r"c\.pth: damaged"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path)


def test_other_content_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(1)}}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="not a checkpoint of segplug or nnU-Net v2: found state_dict"):
        read_checkpoint(tmp_path / "c.pth")
    torch.save([1, 2], tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="found a list"):
        read_checkpoint(tmp_path / "c.pth")


def test_prefixes_of_wrappers() -> None:
    weights = {"a.weight": torch.zeros(1), "module.b": torch.ones(1)}
    assert set(without_prefixes(weights)) == {"a.weight", "module.b"}  # a layer may be called so
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in weights.items()}
    assert set(without_prefixes(wrapped)) == set(weights)
    compiled = torch.compile(nn.Sequential(nn.Linear(1, 1)), backend="eager")
    assert set(without_prefixes(compiled.state_dict())) == {"0.weight", "0.bias"}  # type: ignore[attr-defined]


def test_weights_that_do_not_fit_are_named() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    weights = dict(network.state_dict())
    weights["2.weight"] = weights.pop("1.weight")
    weights["0.weight"] = torch.zeros(4, 4)
    with pytest.raises(CheckpointError) as error:
        load_weights(network, weights, "fold_0/checkpoint_final.pth")
    for part in ("fold_0", "not there: 1.weight", "left over: 2.weight", "0.weight (4, 4) for (3, 2)"):
        assert part in str(error.value)


def test_a_snapshot_does_not_change_with_the_training() -> None:
    weight = torch.ones(3)
    twice = {"a": weight, "b": weight, "c": {"d": [weight[1:]]}}
    copy = snapshot(twice)
    weight.zero_()
    assert copy["a"].tolist() == [1, 1, 1]
    assert copy["c"]["d"][0].tolist() == [1, 1]
    assert copy["a"].data_ptr() == copy["b"].data_ptr()  # written once


def test_what_has_no_plain_form_is_named() -> None:
    with pytest.raises(TypeError, match=r"logging\['x'\]\[1\] is a object"):
        snapshot({"logging": {"x": [1, object()]}})


def test_background_writes_are_in_order_and_whole(tmp_path: Path) -> None:
    network, path = nn.Linear(100, 100), tmp_path / "fold_0" / "checkpoint_latest.pth"
    seen: list[int] = []
    with CheckpointWriter() as writer:
        for epoch in range(8):
            writer.submit(path, content(network, current_epoch=epoch), lambda e=epoch: seen.append(e))  # type: ignore[misc]
            nn.init.constant_(network.weight, epoch)
    assert seen == list(range(8))
    assert read_checkpoint(path).epochs_done == 7
    assert read_checkpoint(path).weights["weight"][0, 0] == 6
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_writing_happens_beside_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *arguments: (release.wait(10), save(*arguments)))
    with CheckpointWriter() as writer:
        start = time.monotonic()
        writer.submit(tmp_path / "c.pth", content(nn.Linear(1, 1)))
        assert time.monotonic() - start < 5
        assert not (tmp_path / "c.pth").exists()
        release.set()
    assert (tmp_path / "c.pth").exists()


def test_an_error_in_the_background_is_told_at_the_next_call(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writer = CheckpointWriter()
    writer.submit(tmp_path / "file" / "c.pth", content(nn.Linear(1, 1)))
    with pytest.raises(CheckpointError, match=r"file/c\.pth: the checkpoint cannot be written"):
        writer.wait()
    writer.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.pth"
    write_checkpoint(path, content(nn.Linear(1, 1), current_epoch=1))
    real_open = Path.open

    def full(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return real_open(Path("/dev/full") if "w" in mode else self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CheckpointError, match=r"c\.pth: the checkpoint cannot be written"):
        write_checkpoint(path, content(nn.Linear(300, 300), current_epoch=2))
    monkeypatch.undo()
    assert read_checkpoint(path).epochs_done == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c.pth"]


KILLED = """
import sys, itertools
from pathlib import Path
from torch import nn
sys.path.insert(0, sys.argv[2])
from segplug.runtime.checkpoint import checkpoint_content
from segplug.runtime.checkpoint_writer import write_checkpoint
network = nn.Linear(700, 700)
for epoch in itertools.count(1):
    nn.init.constant_(network.weight, epoch)
    state = {"optimizer_state": None, "current_epoch": epoch, "logging": {}, "_best_ema": None}
    write_checkpoint(Path(sys.argv[1]), checkpoint_content(network, plans={}, configuration="2d", fold=0,
        dataset_json={}, trainer="t", mirror_axes=(), state=state, extension={}))
    print(epoch, flush=True)
"""


def test_killed_while_writing(tmp_path: Path) -> None:
    """Whenever it is killed, the file is a whole one, the last that was reported or the one after."""
    path = tmp_path / "checkpoint_latest.pth"
    for attempt in range(4):
        process = subprocess.Popen([sys.executable, "-c", KILLED, path, ""], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        last = int(process.stdout.readline())
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGKILL)
        reported = [last, *(int(line) for line in process.stdout.read().split())]
        process.wait()
        process.stdout.close()
        read = read_checkpoint(path)
        assert read.epochs_done in (reported[-1], reported[-1] + 1)
        assert (read.weights["weight"] == read.epochs_done).all()
    write_checkpoint(path, content(nn.Linear(1, 1)))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # what the kills left is gone


@pytest.mark.parametrize("content", [b"", b"\x80\x02garbage" * 50, b"PK\x03\x04" + bytes(300)])
def test_advice_of_torch_to_load_unsafely_is_never_passed_on(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "damaged.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged\.pth: damaged or no checkpoint") as raised:
        read_checkpoint(tmp_path / "damaged.pth")
    assert "weights_only" not in str(raised.value)
