"""What `segplug bench` measures, on phantoms: figures that add up, nothing left behind, results that compare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segplug.cli.main import main
from segplug.errors import DataError, UsageError
from segplug.protocols import PredictionSettings
from segplug.runtime.planned import find_plan
from segplug.runtime.project import Project, open_project
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.untrained_model import write_untrained_model
from segplug.stages.bench import BenchResult, compare, read_result
from segplug.stages.bench_predict import bench_prediction
from segplug.stages.bench_preprocess import bench_preprocessing
from segplug.stages.bench_train import bench_training
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.preprocess import preprocess
from segplug.testing.phantoms import Phantom, write_phantom_dataset

DATASET = "Dataset001_Phantom"
SHORT = ("trainer.batch_size=2",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planned and preprocessed data set in `raw` and `preprocessed`."""
    root = tmp_path_factory.mktemp("bench")
    write_phantom_dataset(root / "raw" / DATASET, Phantom(shape=(12, 20, 18)), cases=5)
    with open_project(root / "raw", root / "preprocessed", workers=0) as project:
        fingerprint(project, DATASET)
        plan(project, DATASET, planner="compact")
        preprocess(project, DATASET, configurations=["3d_fullres"])
    return root


@pytest.fixture
def project(folder: Path) -> Iterator[Project]:
    with open_project(folder / "raw", folder / "preprocessed", workers=0) as opened:
        yield opened


def files_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_training_with_and_without_loading(project: Project, folder: Path) -> None:
    # splits_final.json is made where it is missing, as every training does
    bench_training(project, DATASET, "3d_fullres", repetitions=1, iterations=1, overrides=SHORT, precision="fp32")
    before = files_of(folder)
    for loading in (True, False):
        result = bench_training(
            project,
            DATASET,
            "3d_fullres",
            repetitions=2,
            iterations=3,
            data_loading=loading,
            overrides=SHORT,
            device="cpu",
            precision="fp32",
        )
        assert len(result.repetitions) == 2
        for figures in result.repetitions:
            assert figures["seconds_per_iteration"] == pytest.approx(figures["seconds"] / 3)
            assert figures["samples_per_second"] == pytest.approx(6 / figures["seconds"])
            assert (0 < figures["share_waiting"] < 1) if loading else figures["share_waiting"] == 0
            assert figures["cpu_seconds"] > 0
        assert result.settings["data_loading"] is loading
        assert (result.settings["precision"], result.settings["batch_size"]) == ("fp32", 2)
    assert files_of(folder) == before


def test_prediction_needs_no_training(project: Project, folder: Path) -> None:
    before = files_of(folder)
    result = bench_prediction(
        project,
        DATASET,
        "3d_fullres",
        repetitions=2,
        cases=2,
        folds=2,
        settings=PredictionSettings(device="cpu", mirroring=False),
    )
    for figures in result.repetitions:
        assert 0 < figures["network_seconds"] < figures["seconds"]
        assert figures["share_of_network"] == pytest.approx(figures["network_seconds"] / figures["seconds"])
        assert figures["cases_per_second"] == pytest.approx(2 / figures["seconds"])
        # the first phantom is of the shape that was asked for, the second within a tenth of it per axis
        assert 12 * 20 * 18 < figures["voxels_per_second"] * figures["seconds"] < 2.4 * 12 * 20 * 18
        assert figures["peak_memory_mb"] > 50
    assert (result.settings["folds"], result.settings["mirror_axes"]) == (2, [])
    assert files_of(folder) == before


def test_prediction_twice_the_folds_is_twice_the_network(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = "segplug.stages.bench_predict.NetworkClock._end"
    monkeypatch.setattr(forward, lambda self, *_: calls.append(setattr(self, "seconds", self.seconds + 1.0)))
    counts = []
    for folds in (1, 2):
        result = bench_prediction(
            project,
            DATASET,
            "3d_fullres",
            repetitions=1,
            cases=1,
            folds=folds,
            settings=PredictionSettings(device="cpu"),
        )
        counts.append(result.medians["network_seconds"])
    assert counts[1] == 2 * counts[0] >= 16  # eight mirrored versions of at least one tile


def test_prediction_with_a_model_of_what_was_named(project: Project, tmp_path: Path) -> None:
    plan = find_plan(project.workspace, DATASET)
    raw = load_dataset(project.workspace.raw_folder(DATASET)).description
    model = write_untrained_model(tmp_path / "model", plan, "3d_fullres", raw, project.kernel.registry)
    with pytest.raises(UsageError, match=r"model: a model of configuration 3d_fullres; expected 2d"):
        bench_prediction(project, DATASET, "2d", model=model)
    with pytest.raises(UsageError, match=rf"model: a model of plans {plan.plans_name}; expected others"):
        bench_prediction(project, DATASET, "3d_fullres", model=model, plans_name="others")
    options: dict[str, Any] = {"repetitions": 1, "cases": 1, "settings": PredictionSettings(device="cpu")}
    named = plan.plans_name
    result = bench_prediction(project, DATASET, "3d_fullres", model=model, plans_name=named, **options)
    assert result.settings["weights"] == str(model)


def test_preprocessing_leaves_the_cases_alone(project: Project, folder: Path) -> None:
    before = files_of(folder)
    result = bench_preprocessing(project, DATASET, "3d_fullres", repetitions=2)
    for figures in result.repetitions:
        assert figures["cases_per_second"] == pytest.approx(5 / figures["seconds"])
        assert figures["cpu_seconds"] > 0
        assert figures["peak_memory_mb"] > 20
    assert files_of(folder) == before


def test_preprocessing_is_really_done_each_time(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def watched(*args: Any, **options: Any) -> Any:
        made.append(preprocess(*args, **options))
        return made[-1]

    monkeypatch.setattr("segplug.stages.bench_preprocess.preprocess", watched)
    bench_preprocessing(project, DATASET, "3d_fullres", repetitions=2)
    assert [sum(map(len, done.made.values())) for done in made] == [5, 5]


def test_what_does_not_exist(project: Project) -> None:
    for bench in (bench_training, bench_prediction, bench_preprocessing):
        with pytest.raises(UsageError, match="3d_halfres"):
            bench(project, DATASET, "3d_halfres")


def result_of(seconds: float, **changes: Any) -> BenchResult:
    return BenchResult(
        changes.pop("benchmark", "train"),
        {"dataset": "a", **changes},
        [{"seconds": seconds}, {"seconds": seconds + 1}, {"seconds": seconds + 5}],
    )


def test_results_on_disk_compare(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    file = tmp_path / "before.json"
    result_of(9.0).write(file)
    content = json.loads(file.read_text())
    assert content.keys() == {
        *("benchmark", "settings", "repetitions", "machine", "versions", "time", "compared", "medians")
    }
    assert content["medians"] == {"seconds": 10.0}
    assert content["machine"].keys() == {"cpu", "cores", "memory_gb", "system", "gpu"}
    assert {"python", "segplug", "torch"} <= content["versions"].keys()
    compared = compare(result_of(4.0), read_result(file), file)
    assert compared.compared["ratio"] == 2.0
    assert compared.compared["medians"] == {"seconds": 10.0}
    assert not recwarn.list
    with pytest.warns(UserWarning, match="dataset a then, b now"):
        assert compare(result_of(4.0, dataset="b"), read_result(file), file).compared["differ"]
    with pytest.raises(DataError, match=r"a result of bench train; expected one of bench predict"):
        compare(result_of(4.0, benchmark="predict"), read_result(file), file)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"benchmark": "train"},
        {**result_of(1.0).as_json(), "repetitions": []},
        {**result_of(1.0).as_json(), "repetitions": [{"minutes": 1.0}]},
        {**result_of(1.0).as_json(), "repetitions": [{"seconds": "1"}]},
    ],
)
def test_other_files_are_no_results(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no result of a benchmark"):
        read_result(file)


def test_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roots = ["--raw", str(folder / "raw"), "--preprocessed", str(folder / "preprocessed")]
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    options = ["--repetitions", "1", "--workers", "0"]
    with pytest.raises(SystemExit) as ended:
        main([*roots, "bench", "preprocess", DATASET, "3d_fullres", *options, "--out", str(first)])
    assert ended.value.code == 0
    options += ["--out", str(second), "--against", str(first)]
    with pytest.raises(SystemExit) as ended:
        main([*roots, "bench", "preprocess", DATASET, "3d_fullres", *options])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "peak_memory_mb" in shown
    ratio = json.loads(second.read_text())["compared"]["ratio"]
    assert f"{ratio:.2f} times as fast as {first}" in shown
    with pytest.raises(SystemExit) as ended:
        main([*roots, "bench", "train", DATASET, "3d_halfres"])
    assert ended.value.code == 2
