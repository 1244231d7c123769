from __future__ import annotations

from pathlib import Path

import pytest

from segplug.runtime.model_names import train_command


@pytest.mark.parametrize(
    ("trainer", "named"),
    [("nnUNetTrainer", ""), ("nnUNetTrainer_250epochs", " --trainer nnUNetTrainer_250epochs")],
)
def test_the_command_trains_with_the_trainer_of_the_folder(trainer: str, named: str) -> None:
    folder = Path("results/Dataset004_X") / f"{trainer}__nnUNetPlans__2d"
    assert train_command(folder, 3) == f"segplug train Dataset004_X 2d 3 --plans-name nnUNetPlans{named} --continue"
