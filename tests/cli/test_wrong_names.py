"""Names of components that do not exist: wrong usage (2) where the user wrote them, else the fault of a file (1)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from segplug.errors import PluginError, UsageError
from segplug.model import ComponentRef
from segplug.runtime.project import Project, open_project
from segplug.runtime.user_choice import named_by_user
from segplug.testing.phantoms import Phantom, write_phantom_dataset

MAIN = "from segplug.cli.main import main; main()"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planned data set of three cases."""
    folder = tmp_path_factory.mktemp("roots")
    (folder / "raw/Dataset501_Phantom").mkdir(parents=True)
    write_phantom_dataset(folder / "raw/Dataset501_Phantom", Phantom(shape=(12, 16, 14)), cases=5)
    done = segplug(folder, "fingerprint", "501", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert segplug(folder, "plan", "501").returncode == 0
    return folder


def segplug(root: Path, *arguments: str, settings: str = "") -> subprocess.CompletedProcess[str]:
    options = [f"--{name}={root / name}" for name in ("raw", "preprocessed", "results")]
    if settings:
        (root / "other.toml").write_text(settings)
        options.append(f"--settings={root / 'other.toml'}")
    command = [sys.executable, "-c", MAIN, *options, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("plan", "501", "--planner", "nope"), "planner: no component 'nope' among the planners"),
        (("train", "501", "2d", "0", "--trainer", "nope"), "trainer: no component 'nope' among the trainers"),
        (("splits", "501", "--splitter", "nope"), "--splitter: no component 'nope' among the splitters"),
        (("splits", "501", "--splitter", "kfold,fold=2"), "'fold'. It takes: folds, seed"),
        (("run", "501", "--planner", "nope"), "planner: no component 'nope'"),
        (("run", "501", "-c", "3d_fulres"), "no configuration '3d_fulres'. Did you mean 3d_fullres?"),
        (("run", "501", "--trainer", "nope"), "trainer: no component 'nope'"),
        (("run", "501", "--set", "lr=3"), "--set lr=3: expected trainer.<field>=<value>"),
        (("run", "501", "--device", "gpu"), "--device gpu: expected auto, cpu"),
        (("plugins", "show", "nope"), "called 'nope'"),
        (("plugins", "list", "--kind", "nope"), "no kind of component 'nope'"),
    ],
)
def test_a_name_of_the_command_line(root: Path, arguments: tuple[str, ...], told: str) -> None:
    before = sorted(root.rglob("*"))
    done = segplug(root, *arguments)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert done.stderr.startswith("usage error: ")
    assert len(done.stderr.splitlines()) == 1  # nothing was begun
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('[defaults]\nexecutor = "nope"', "executor in the settings: no component 'nope' among the executors"),
        ("[executors.local]\nthread = 2", "[executors.local] in the settings: executors: builtin:local cannot be made"),
        ('[pins]\nlosses.dice_ce = "nope:dice_ce"', "pin losses.dice_ce in the settings: no component"),
        ('[pins]\nlosses.dice_ce = "builtin:dice_cee"', "Did you mean"),
        ('[pins]\nlosses.dice_cee = "builtin:dice_ce"', "there is no 'dice_cee' among the losses"),
        ('[pins]\nloses.dice_ce = "builtin:dice_ce"', "expected '<kind>.<name>'"),
        ('[defaults]\ndevice = "gpu"', "defaults.device is 'gpu'; expected auto, cpu"),
        ('[defaults]\nprecision = "half"', "defaults.precision is 'half'; expected one of auto, fp32"),
    ],
)
def test_a_name_of_the_settings_that_the_command_does_not_use(root: Path, settings: str, told: str) -> None:
    done = segplug(root, "fingerprint", "501", settings=settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_plugins_list_shows_what_is_wrong_with_the_settings(root: Path) -> None:
    done = segplug(root, "plugins", "list", settings='[pins]\nlosses.dice_ce = "nope:dice_ce"')
    assert done.returncode == 0
    assert "problem: no component 'nope:dice_ce'" in done.stderr


def test_a_name_in_a_plan_is_the_plans_fault(root: Path) -> None:
    file = root / "preprocessed/Dataset501_Phantom/nnUNetPlans.json"
    plan = json.loads(file.read_text())
    plan["plans_name"] = "edited"
    plan["configurations"]["2d"]["resampling_fn_data"] = "nope"
    (file.parent / "edited.json").write_text(json.dumps(plan))
    done = segplug(root, "preprocess", "501", "-c", "2d", "-p", "edited")
    assert done.returncode == 1
    assert "no component 'nope' among the resamplers" in done.stderr
    (file.parent / "edited.json").unlink()


def test_what_a_plugin_breaks_stays_its_fault(tmp_path: Path) -> None:
    with open_project(workers=0) as project, pytest.raises(PluginError):
        _break(project)


def _break(project: Project) -> None:
    with named_by_user("--x"):
        raise PluginError("broken")


def test_options_that_a_component_does_not_take_are_wrong_usage_too() -> None:
    with (
        open_project(workers=0) as project,
        pytest.raises(UsageError, match=r"metric: .*It takes"),
        named_by_user("metric"),
    ):
        project.kernel.registry.build("metrics", ComponentRef("hd95", {"percent": 5}))
