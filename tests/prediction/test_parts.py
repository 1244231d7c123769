"""Parts of a folder of images, predicted by calls that know nothing of each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplug.cli.main import main
from segplug.errors import DataError, UsageError
from segplug.kernel import Kernel, hookimpl
from segplug.protocols import PredictionSettings
from segplug.runtime.files import PARTIAL, file_hash, read_json
from segplug.runtime.folder_lock import working_in
from segplug.runtime.parts import WHOLE, Part
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.predict import predict_folder

Make = Callable[..., Path]
FP32 = PredictionSettings(precision="fp32", save_probabilities=True)


@pytest.fixture
def images(tmp_path: Path, make_image: Make) -> Path:
    for number in range(5):
        make_image(tmp_path / "in" / f"case_{number}_0000.nii.gz", (8, 12 + number, 14), seed=number)
    return tmp_path / "in"


def contents(folder: Path) -> dict[str, str]:
    """Hashes of all files but the one that tells how the command was called."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "predict_from_raw_data_args.json"]
    return {str(file.relative_to(folder)): file_hash(file) for file in files}


@given(st.integers(1, 12), st.lists(st.text(), unique=True))
def test_every_case_is_in_exactly_one_part(count: int, cases: list[str]) -> None:
    parts = [Part(number, count).of(sorted(cases)) for number in range(1, count + 1)]
    assert sorted(case for part in parts for case in part) == sorted(cases)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2", ""])
def test_no_such_part(text: str) -> None:
    with pytest.raises(UsageError, match=f"--part {text}: expected K/N"):
        Part.parse(text)


def test_parts_at_the_same_time_write_what_one_call_writes(
    kernel: Kernel, make_model: Make, images: Path, tmp_path: Path
) -> None:
    model, out = make_model(), tmp_path / "out"
    together = threading.Barrier(3)

    class Meet:
        @hookimpl
        def segplug_stage_started(self) -> None:
            together.wait(60)  # each has its lock by now, and has not written yet

    def predict(number: int) -> tuple[str, ...]:
        own = Kernel(discover=False)
        own.register(Meet(), "meet")
        with Project(Workspace(), own, workers=0) as project:
            return predict_folder(project, images, out, model, settings=FP32, part=Part(number, 3)).predicted

    with ThreadPoolExecutor(3) as threads:
        predicted = list(threads.map(predict, (1, 2, 3)))
    assert predicted == [("case_0", "case_3"), ("case_1", "case_4"), ("case_2",)]
    assert read_json(out / "predict_from_raw_data_args.json")["num_parts"] == 3
    with Project(Workspace(), kernel, workers=0) as project:
        predict_folder(project, images, tmp_path / "whole", model, settings=FP32)
        assert contents(out) == contents(tmp_path / "whole")
        assert predict_folder(project, images, out, model, settings=FP32, continue_=True).predicted == ()


def test_a_part_that_failed_is_made_up_for(project: Project, make_model: Make, images: Path, tmp_path: Path) -> None:
    model, out, damaged = make_model(), tmp_path / "out", images / "case_3_0000.nii.gz"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:500])
    with pytest.raises(DataError, match=r"1 of 2 cases not predicted.*\n.*case_3"):
        predict_folder(project, images, out, model, settings=FP32, part=Part(2, 2))
    assert predict_folder(project, images, out, model, settings=FP32, part=Part(1, 2)).predicted == (
        "case_0",
        "case_2",
        "case_4",
    )
    damaged.write_bytes(whole)
    made_up = predict_folder(project, images, out, model, settings=FP32, continue_=True)
    assert (made_up.predicted, made_up.kept) == (("case_3",), ("case_0", "case_1", "case_2", "case_4"))


def test_more_parts_than_cases(project: Project, make_model: Make, images: Path, tmp_path: Path) -> None:
    done = predict_folder(project, images, tmp_path / "out", make_model(), settings=FP32, part=Part(7, 9))
    assert done.predicted == ()


def test_who_may_work_beside_whom(tmp_path: Path) -> None:
    half_written = tmp_path / f"{PARTIAL}0123456789ab-case.nii.gz"
    with working_in(tmp_path, Part(1, 2)):
        half_written.touch()
        with working_in(tmp_path, Part(2, 2)):
            pass
        assert half_written.is_file()  # it may be the other part's
        with pytest.raises(UsageError, match="another run of part 1 of 2 is writing here"):
            working_in(tmp_path, Part(1, 2)).__enter__()
        with pytest.raises(UsageError, match="another run is writing here"):
            working_in(tmp_path).__enter__()
    with working_in(tmp_path, WHOLE), pytest.raises(UsageError, match="a run that is no part is writing here"):
        working_in(tmp_path, Part(1, 2)).__enter__()
    assert not half_written.exists()
    assert list((tmp_path / ".segplug").iterdir()) == []


def test_the_command(make_model: Make, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["predict", "-i", str(images), "-o", str(tmp_path / "out"), "-m", str(make_model())]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--part", "2/2", "--precision", "fp32"])
    assert ended.value.code == 0
    assert "predicted 2 cases, part 2 of 2" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--part", "0/2"])
    assert ended.value.code == 2
    assert "--part 0/2: expected K/N with K from 1 to N" in capsys.readouterr().err
