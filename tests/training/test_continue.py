"""A training that is killed and continued is the training that was never killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from segplug.errors import CheckpointError, DataError, UsageError
from segplug.kernel import hookimpl
from segplug.runtime.checkpoint import read_checkpoint
from segplug.stages.train import train

NAME, PLANS = "Dataset601_Phantom", "tinyPlans"
EPOCHS = 5

PROGRAM = """
import os, signal, sys
from pathlib import Path
from segplug.kernel import Kernel, hookimpl
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.train import train

class Killer:
    '''Kills this process at the n-th time that an event comes.'''

    def __init__(self, event, count):
        self.event, self.left = event, int(count)

    def seen(self, event):
        self.left -= event == self.event
        if event == self.event and self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @hookimpl
    def segplug_epoch_finished(self, folder): self.seen("epoch")
    @hookimpl
    def segplug_checkpoint_written(self, path): self.seen(path.stem)
    @hookimpl
    def segplug_case_predicted(self, case): self.seen("predicted")
    @hookimpl
    def segplug_stage_started(self, stage): self.seen(stage)

if __name__ == "__main__":
    data, results, event, count, workers, *continue_ = sys.argv[1:]
    workspace = Workspace(Path(data, "raw"), Path(data, "preprocessed"), Path(results))
    with Project(workspace, Kernel(discover=False), workers=int(workers)) as project:
        project.kernel.register(Killer(event, count), "killer")
        train(project, "Dataset601_Phantom", "3d_fullres", 1, plans_name="tinyPlans", epochs=5,
              overrides=["trainer.optimizer=sgd"], precision="fp32", continue_=bool(continue_))
"""


class Process:
    """Trains in a process of its own."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.results = data, folder / "results"
        self.program = folder / "program.py"
        self.program.write_text(PROGRAM)

    def start(self, event: str = "never", count: int = 1, *, workers: int = 0, continue_: bool = False):
        arguments = [str(self.data), str(self.results), event, str(count), str(workers)]
        arguments += ["continue"] if continue_ else []
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        return subprocess.Popen([sys.executable, str(self.program), *arguments], env=environment)

    def run(self, *args, **options) -> int:
        return self.start(*args, **options).wait(timeout=300)

    @property
    def fold(self) -> Path:
        return self.results / NAME / f"nnUNetTrainer__{PLANS}__3d_fullres" / "fold_1"

    def logged(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.fold.glob("training_log_*.txt")))


@pytest.fixture(scope="session")
def uninterrupted(prepared, tmp_path_factory):
    process = Process(prepared, tmp_path_factory.mktemp("uninterrupted"))
    assert process.run() == 0
    return process


def assert_same_training(found: Path, expected: Path) -> None:
    """Weights, optimiser, history and validation: everything but the times."""
    for name in ("checkpoint_final.pth", "checkpoint_best.pth"):
        a, b = (torch.load(folder / name, weights_only=True) for folder in (found, expected))
        assert a["network_weights"].keys() == b["network_weights"].keys()
        for key, tensor in a["network_weights"].items():
            assert torch.equal(tensor, b["network_weights"][key]), key
        for index, state in a["optimizer_state"]["state"].items():
            assert torch.equal(state["momentum_buffer"], b["optimizer_state"]["state"][index]["momentum_buffer"])
        for key in ("train_losses", "val_losses", "ema_fg_dice", "lrs"):
            assert a["logging"][key] == pytest.approx(b["logging"][key], rel=0, abs=0, nan_ok=True), key
        assert (a["current_epoch"], a["_best_ema"]) == (b["current_epoch"], b["_best_ema"])
    summaries = [json.loads((folder / "validation" / "summary.json").read_text()) for folder in (found, expected)]
    assert summaries[0]["mean"] == summaries[1]["mean"]
    assert not list(found.rglob(".partial-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "count", "resumed"),
    [
        ("epoch", 1, "nothing to continue, from the beginning"),  # before the first checkpoint
        ("epoch", 3, "continued after "),
        ("checkpoint_best", 1, None),  # `latest` of the same epoch may or may not be there
        ("checkpoint_latest", 2, "continued after "),
        ("checkpoint_final", 1, None),  # `latest` is still there beside it
        ("predicted", 1, None),
    ],
)
def test_killed_at_an_event(prepared, uninterrupted, tmp_path, event, count, resumed):
    process = Process(prepared, tmp_path)
    assert process.run(event, count) == -signal.SIGKILL
    assert process.run(continue_=True) == 0
    assert_same_training(process.fold, uninterrupted.fold)
    if resumed is not None:
        assert resumed in process.logged()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_moments(prepared, uninterrupted, tmp_path, workers):
    process = Process(prepared, tmp_path)
    moments = random.Random(os.getpid() + workers)
    kills = 0
    while kills < 4:
        running = process.start(workers=workers, continue_=True)
        begun = time.monotonic()
        delay = moments.uniform(0.0, 1.5)
        # importing torch takes most of the time: begin to count when the training does
        while running.poll() is None and time.monotonic() - begun < 60 and not process.fold.is_dir():
            time.sleep(0.01)
        time.sleep(2.0 * (kills > 0) + delay)
        if running.poll() is not None:
            break
        running.send_signal(signal.SIGKILL)
        running.wait()
        kills += 1
        for path in process.fold.glob("checkpoint_*.pth"):
            read_checkpoint(path)  # whatever is there is whole
    assert process.run(workers=workers, continue_=True) == 0
    assert_same_training(process.fold, uninterrupted.fold)


# --- what --continue means, in this process --------------------------------------------------------------------------


class Subjects:
    def __init__(self):
        self.told = []

    @hookimpl
    def segplug_stage_started(self, stage, subject):
        self.told.append(f"{stage} {subject}")


def run(project, **options):
    subjects = Subjects()
    project.kernel.register(subjects, f"subjects {id(subjects)}")
    return train(project, NAME, "3d_fullres", 0, plans_name=PLANS, **options), subjects.told


def test_nothing_to_continue_starts_and_says_so(make_project):
    fold, told = run(make_project(), continue_=True, epochs=1)
    assert told[0] == f"train {NAME} 3d_fullres fold 0, nothing to continue, from the beginning"
    assert fold.checkpoint().is_file()


def test_finished_work_is_left_alone(make_project):
    fold, _ = run(make_project(), epochs=1)
    files = {path: path.stat().st_mtime_ns for path in fold.folder.rglob("*")}
    _, told = run(make_project(), continue_=True)
    assert told == [f"train {NAME} 3d_fullres fold 0 (finished already, nothing to do)"]
    assert {path: path.stat().st_mtime_ns for path in fold.folder.rglob("*")} == files


def test_more_epochs_go_on_from_the_final_checkpoint(make_project):
    fold, _ = run(make_project(), epochs=1)
    old = fold.validation_folder / "summary.json"
    before = old.stat().st_mtime_ns
    _, told = run(make_project(), continue_=True, epochs=2)
    assert told[0].endswith("continued after 1 epoch")
    assert read_checkpoint(fold.checkpoint()).epochs_done == 2
    assert old.stat().st_mtime_ns > before
    assert "changed for the continuation: epochs: 1 -> 2" in "".join(
        path.read_text() for path in fold.folder.glob("training_log_*.txt")
    )


def test_settings_and_seed_are_those_of_the_beginning(make_project, same_weights):
    options = {"overrides": ["trainer.lr=0.05", "trainer.optimizer=sgd"], "seed": 7, "precision": "fp32"}
    whole, _ = run(make_project(results="whole"), epochs=2, **options)
    part, _ = run(make_project(results="part"), epochs=1, **options)
    run(make_project(results="part"), epochs=2, continue_=True)
    # with `poly` the learning rate of epoch 1 depends on the number of epochs alone; one_cycle's of epoch 0 does too
    state = [read_checkpoint(fold.checkpoint()) for fold in (whole, part)]
    assert state[0].extension["seed"] == state[1].extension["seed"] == 7
    assert state[0].extension["trainer"] == state[1].extension["trainer"]
    assert state[1].extension["precision"] == "fp32"


def test_another_trainer_cannot_continue(make_project):
    run(make_project(), epochs=1)
    with pytest.raises(UsageError, match="begun by trainer 'short', not 'nnunet'"):
        run(make_project(), trainer="nnunet", continue_=True)


def test_the_trainer_is_that_of_the_beginning(make_project):
    overrides = ["trainer.iterations_per_epoch=1", "trainer.val_iterations_per_epoch=1"]
    run(make_project(), trainer="nnunet", overrides=overrides, epochs=1)
    fold, told = run(make_project(), epochs=2, continue_=True)
    assert told[0].endswith("continued after 1 epoch")
    assert read_checkpoint(fold.checkpoint()).extension["trainer"]["name"] == "nnunet"


def test_a_plan_that_changed_is_not_continued(make_project, prepared):
    run(make_project(), epochs=1)
    file = prepared / "preprocessed" / NAME / f"{PLANS}.json"
    before = file.read_text()
    file.write_text(before.replace('"batch_size": 2', '"batch_size": 3'))
    try:
        with pytest.raises(DataError, match=r"have changed \(batch_size\)"):
            run(make_project(), epochs=2, continue_=True)
        run(make_project(), continue_=True)  # finished work is left alone
    finally:
        file.write_text(before)


def test_cases_that_changed_are_not_continued(make_project, prepared):
    run(make_project(), epochs=1)
    file = prepared / "preprocessed" / NAME / "splits_final.json"
    before = file.read_text()
    splits = json.loads(before)
    splits[0]["train"].pop()
    file.write_text(json.dumps(splits))
    try:
        with pytest.raises(DataError, match=r"have changed \(cases of the fold\)"):
            run(make_project(), epochs=2, continue_=True)
    finally:
        file.write_text(before)


def test_training_anew_keeps_what_was_there(make_project, same_weights):
    first, _ = run(make_project(), epochs=1, seed=1)
    kept = first.folder.parent / "kept.pth"
    kept.write_bytes(first.checkpoint().read_bytes())
    second, told = run(make_project(), epochs=1, seed=2)
    (previous,) = first.model_folder.glob("previous_fold_0_*")
    assert str(previous) in told[0]
    assert same_weights(previous / "checkpoint_final.pth", kept)
    assert not same_weights(second.checkpoint(), kept)
    assert [path.name for path in first.model_folder.glob("fold_*")] == ["fold_0"]


def test_a_damaged_checkpoint_is_named(make_project):
    fold, _ = run(make_project(), epochs=1)
    fold.checkpoint().write_bytes(fold.checkpoint().read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"checkpoint_final.pth"):
        run(make_project(), continue_=True)


def test_missing_validation_is_made_up_for(make_project):
    fold, _ = run(make_project(), epochs=1)
    (fold.validation_folder / "summary.json").unlink()
    prediction = next(fold.validation_folder.glob("*.nii.gz"))
    written = prediction.stat().st_mtime_ns
    _, told = run(make_project(), continue_=True)
    assert not [text for text in told if text.startswith("train")]
    assert (fold.validation_folder / "summary.json").is_file()
    assert prediction.stat().st_mtime_ns == written  # whole, and of the same weights: kept
