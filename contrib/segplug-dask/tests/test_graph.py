"""Trainings and predictions as tasks: what waits for what, and both commands on the sample."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from segplug_dask.commands_there import Place
from segplug_dask.executor import DaskExecutor
from segplug_dask.graph import Node, run_graph, training_graph

from segplug.errors import UsageError
from segplug.sample import DATASET, sample_root

PREVIOUS = {"2d": None, "3d_lowres": None, "3d_cascade_fullres": "3d_lowres"}


def test_a_cascade_waits_for_every_fold_of_its_first_stage() -> None:
    nodes = training_graph("D", PREVIOUS, ["3d_cascade_fullres"], ["0"], ["0", "1"], ["--continue"])
    assert [node.name for node in nodes] == ["3d_lowres fold 0", "3d_lowres fold 1", "3d_cascade_fullres fold 0"]
    assert nodes[2].needs == ("3d_lowres fold 0", "3d_lowres fold 1")
    assert nodes[0].needs == ()
    assert nodes[0].arguments == ("train", "D", "3d_lowres", "0", "--continue")


def test_nothing_is_trained_twice() -> None:
    names = [node.name for node in training_graph("D", PREVIOUS, list(PREVIOUS), ["0", "1"], ["0", "1"], [])]
    assert len(names) == len(set(names)) == 6


def test_a_configuration_that_the_plan_does_not_have() -> None:
    with pytest.raises(UsageError, match="no configuration 4d in the plan; there are: 2d"):
        training_graph("D", PREVIOUS, ["4d"], ["0"], ["0"], [])


def test_train_and_predict_on_the_sample(make_project: Any, tmp_path: Path) -> None:
    segplug = make_project(tmp_path / "project")
    small = ("--epochs", "1", "--set", "trainer.iterations_per_epoch=1", "--set", "trainer.val_iterations_per_epoch=1")
    trained = ("dask", "train", DATASET, "--planner", "compact", "-c", "3d_fullres", "-f", "0", "-f", "1", *small)
    done = segplug(*trained, "--workers", "2", "--device", "cpu")
    assert "3d_fullres fold 0: " in done.stdout
    assert "3d_fullres fold 1: " in done.stdout
    model = next((segplug.folder / "results" / DATASET).iterdir())
    assert all((model / f"fold_{fold}" / "checkpoint_final.pth").is_file() for fold in (0, 1))

    images = tmp_path / "images"
    images.mkdir()
    for image in sorted((sample_root() / DATASET / "imagesTr").iterdir())[:3]:
        shutil.copy(image, images)
    call = ("-i", str(images), "-m", str(model), "--device", "cpu", "--no-mirroring")
    segplug("dask", "predict", "--parts", "2", "--workers", "2", "--", *call, "-o", "there")
    segplug("predict", *call, "-o", "here")
    here, there = segplug.folder / "here", segplug.folder / "there"
    maps = sorted(file.name for file in here.glob("*.nii.gz"))
    assert len(maps) == 3
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in maps)


def test_commands_for_which_no_worker_comes_are_given_up() -> None:
    from distributed import LocalCluster

    nodes = [Node("first", ("train",)), Node("second", ("train",), needs=("first",))]
    told: list[str] = []
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        executor = DaskExecutor(workers=2, address=cluster.scheduler_address, patience=1.5)
        done = run_graph(executor, nodes, Place("."), lambda name, why: told.append(f"{name}: {why}"))
        executor.close()
    assert not done.printed
    assert list(done.failed) == ["first", "second"]
    assert "first: given up, for the cluster has had no worker for 1.5 seconds. Start workers" in done.failed["first"]
    assert told == [f"{name}: {why}" for name, why in done.failed.items()]


def test_a_training_that_fails_is_named(make_project: Any, tmp_path: Path) -> None:
    segplug = make_project(tmp_path / "project")
    wrong = ("--set", "trainer.no_such_setting=1", "--workers", "1", "--device", "cpu")
    done = segplug("dask", "train", DATASET, "--planner", "compact", "-c", "3d_fullres", "-f", "0", *wrong, code=1)
    assert "1 of 1 trainings failed" in done.stderr
    assert "no_such_setting" in done.stderr


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (
            "slurm",
            'queue = "gpu", cores = 4, memory = "16GB", walltime = "02:00:00"',
            ["SBATCH -p gpu", "SBATCH -t 02"],
        ),
        ("pbs", 'queue = "long", cores = 4, memory = "16GB", walltime = "02:00:00"', ["#PBS -q long", "walltime=02"]),
        (
            "lsf",
            'queue = "short", cores = 4, memory = "16GB", walltime = "02:00"',
            ["#BSUB -q short", "#BSUB -W 02:00"],
        ),
    ],
)
def test_jobs_of_a_queue(make_project: Any, tmp_path: Path, kind: str, options: str, expected: list[str]) -> None:
    """The script alone: there is no queue here that would take it."""
    settings = f'[executors.dask]\ncluster = {{ kind = "{kind}", {options} }}\n'
    script = make_project(tmp_path / "project", more=settings)("dask", "job-script").stdout
    assert "distributed" in script
    for text in expected:
        assert text in script
