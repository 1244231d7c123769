"""Both losses through the commands, on the sample that comes with segplug."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segplug.sample import DATASET, sample_root

Segplug = Callable[..., subprocess.CompletedProcess[str]]
MODEL = f"results/{DATASET}/nnUNetTrainer__segplugCompactPlans__3d_fullres"
SHORT = ("trainer.epochs=1", "trainer.iterations_per_epoch=2", "trainer.val_iterations_per_epoch=1")
FEW = [part for setting in (*SHORT, "trainer.batch_size=2") for part in ("--set", setting)]
REPLACED = "the built-in 'dice_ce' of the losses is replaced by 'dice_ce' of"


@pytest.fixture(scope="module")
def segplug(tmp_path_factory: pytest.TempPathFactory) -> Segplug:
    """Calls segplug as a user does, in a folder where the sample is prepared with the compact planner."""
    folder = tmp_path_factory.mktemp("project")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("nnUNet", "SEGPLUG"))}
    places = {"raw": sample_root(), "preprocessed": folder / "preprocessed", "results": folder / "results"}
    clean |= {f"nnUNet_{name}": str(place) for name, place in places.items()}

    def call(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "segplug", *arguments],
            cwd=folder,
            env=clean,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    call("prepare", "4", "--planner", "compact", "-c", "3d_fullres", "--workers", "0")
    call.folder = folder  # type: ignore[attr-defined]
    return call


def trained(segplug: Segplug, *settings: str) -> tuple[str, dict[str, dict[str, str]]]:
    """Train for a moment; returns what was told, and the checkpoint's record of each component by its kind."""
    given = [part for setting in settings for part in ("--set", setting)]
    done = segplug("train", "4", "3d_fullres", "0", *FEW, *given, "--device", "cpu", "--workers", "0")
    file = segplug.folder / MODEL / "fold_0" / "checkpoint_final.pth"  # type: ignore[attr-defined]
    record = torch.load(file, weights_only=True)["segplug"]["provenance"]
    return done.stdout + done.stderr, {each["kind"]: each for each in record}


def test_the_replacement_is_told_and_recorded(segplug: Segplug) -> None:
    said, record = trained(segplug)
    assert REPLACED in said
    assert record["losses"]["plugin"] == "sparse_losses"
    assert record["losses"]["distribution"] == "segplug-sparse-losses"
    assert record["losses"]["version"] == "0.1.0"


def test_cldice_by_its_name(segplug: Segplug) -> None:
    _, record = trained(segplug, "trainer.loss=cldice", "trainer.loss.iterations=2")
    assert (record["losses"]["name"], record["losses"]["plugin"]) == ("cldice", "sparse_losses")


def test_the_built_in_one_by_its_full_name(segplug: Segplug) -> None:
    _, record = trained(segplug, "trainer.loss=builtin:dice_ce")
    assert record["losses"]["plugin"] == "builtin"


def test_a_pin_undoes_the_replacement(segplug: Segplug) -> None:
    file: Path = segplug.folder / "segplug.toml"  # type: ignore[attr-defined]
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    file.write_text(readme.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    try:
        said, record = trained(segplug)
    finally:
        file.unlink()
    assert REPLACED not in said
    assert record["losses"]["plugin"] == "builtin"


def test_an_option_that_cannot_be_is_told_before_anything_is_read(segplug: Segplug) -> None:
    done = segplug("train", "4", "3d_fullres", "0", "--set", "trainer.loss.weight_boundary=-1", code=2)
    assert "weight_boundary -1; expected 0 or more" in done.stderr


def test_the_listing_says_which_is_in_force(segplug: Segplug) -> None:
    listed = segplug("plugins", "list", "--kind", "losses").stdout.splitlines()
    (replaced,) = [line for line in listed if "builtin:dice_ce" in line]
    assert "replaced by sparse_losses:dice_ce" in replaced
