"""Settings come from the command line, segplug.toml, then the environment; errors name the file and the key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from segplug.cli.settings import Roots, Settings, read_settings
from segplug.errors import UsageError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_set_is_the_defaults(here: Path) -> None:
    assert read_settings(Roots(), {}) == Settings()


def test_precedence(here: Path) -> None:
    environment = {"nnUNet_raw": "/of/nnunet", "nnUNet_results": "/of/nnunet", "nnUNet_preprocessed": "/of/nnunet"}
    assert read_settings(Roots(), environment).raw == Path("/of/nnunet")
    environment |= {"SEGPLUG_RAW": "/of/environment", "SEGPLUG_RESULTS": "/of/environment"}
    assert read_settings(Roots(), environment).raw == Path("/of/environment")
    (here / "segplug.toml").write_text('[paths]\nraw = "of/file"\n')
    assert read_settings(Roots(), environment).raw == here / "of" / "file"
    found = read_settings(Roots(raw=Path("/of/command/line")), environment)
    assert found.raw == Path("/of/command/line")
    assert found.results == Path("/of/environment")
    assert found.preprocessed == Path("/of/nnunet")


def test_the_file_is_found_above_and_its_paths_are_relative_to_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "segplug.toml").write_text('[paths]\nraw = "data"\nresults = "/absolute"\npreprocessed = "~/pre"\n')
    (here / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(here / "a" / "b")
    found = read_settings(Roots(), {})
    assert (found.raw, found.results) == (here / "data", Path("/absolute"))
    assert found.preprocessed == Path("~/pre").expanduser()


def test_a_file_that_is_named_is_taken_instead(here: Path) -> None:
    (here / "segplug.toml").write_text("[defaults]\nworkers = 1\n")
    (here / "other.toml").write_text("[defaults]\nworkers = 2\n")
    assert read_settings(Roots(settings=here / "other.toml"), {}).workers == 2
    with pytest.raises(UsageError, match="no such settings file"):
        read_settings(Roots(settings=here / "absent.toml"), {})


def test_defaults_from_file_and_environment(here: Path) -> None:
    (here / "segplug.toml").write_text('[defaults]\nworkers = 0\ndevice = "cpu"\n[plugins]\nblock = ["a", "b"]\n')
    found = read_settings(Roots(), {"SEGPLUG_WORKERS": "7", "SEGPLUG_PRECISION": "bf16"})
    assert (found.workers, found.device, found.precision, found.block) == (0, "cpu", "bf16", ("a", "b"))


@pytest.mark.parametrize(
    "text",
    [
        '[pins]\n"losses.dice_ce" = "focal:dice_ce"\n"normalizers.zscore" = "builtin:zscore"\n',
        '[pins]\nlosses.dice_ce = "focal:dice_ce"\nnormalizers.zscore = "builtin:zscore"\n',
        '[pins.losses]\ndice_ce = "focal:dice_ce"\n[pins.normalizers]\nzscore = "builtin:zscore"\n',
    ],
)
def test_pins_however_they_are_written(here: Path, text: str) -> None:
    (here / "segplug.toml").write_text(text)
    assert read_settings(Roots(), {}).pins == {
        "losses.dice_ce": "focal:dice_ce",
        "normalizers.zscore": "builtin:zscore",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[path]\n", "no table is called 'path'. Did you mean 'paths'? There are: paths, defaults, plugins, pins"),
        ('[paths]\nrow = "x"\n', "no key in [paths] is called 'row'. Did you mean 'raw'?"),
        ("[paths]\nraw = 3\n", "paths.raw is 3; expected a text"),
        ('[defaults]\nworkers = "two"\n', "defaults.workers is 'two'; expected a whole number, 0 or more"),
        ("[defaults]\nworkers = true\n", "defaults.workers is True"),
        ("[defaults]\nworkers = -1\n", "defaults.workers is -1"),
        ('[plugins]\nblock = "a"\n', "plugins.block is 'a'; expected a list of plugin names"),
        ("[pins]\nlosses.dice = 3\n", "pin losses.dice is 3; expected 'plugin:name'"),
        ("paths = 3\n", "'paths' must be a table ([paths])"),
        ("paths = \n", "not TOML"),
    ],
)
def test_errors_name_the_key_and_what_was_expected(here: Path, text: str, expected: str) -> None:
    (here / "segplug.toml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(expected)):
        read_settings(Roots(), {})


def test_a_wrong_environment_variable_is_named(here: Path) -> None:
    with pytest.raises(UsageError, match="SEGPLUG_WORKERS is '-2'; expected a whole number"):
        read_settings(Roots(), {"SEGPLUG_WORKERS": "-2"})


def test_executors_have_options_and_the_command_line_names_one(here: Path) -> None:
    (here / "segplug.toml").write_text(
        '[defaults]\nexecutor = "far"\n[executors.far]\naddress = "tcp://head:1"\n[executors.far.cluster]\ncores = 4\n'
    )
    found = read_settings(Roots(), {"SEGPLUG_EXECUTOR": "other"})
    assert found.executor == "far"
    assert found.executors == {"far": {"address": "tcp://head:1", "cluster": {"cores": 4}}}
    assert read_settings(Roots(executor="local"), {}).executor == "local"
    (here / "segplug.toml").write_text('[executors]\nfar = "tcp://head:1"\n')
    with pytest.raises(UsageError, match=r"executors\.far is 'tcp://head:1'; expected a table"):
        read_settings(Roots(), {})


def test_options_of_plugins(here: Path) -> None:
    (here / "segplug.toml").write_text('[options.track]\nexperiment = "liver"\n')
    assert read_settings(Roots(), {}).options == {"track": {"experiment": "liver"}}
    (here / "segplug.toml").write_text("[options]\ntrack = 1\n")
    with pytest.raises(UsageError, match=r"options\.track is 1; expected a table of its options"):
        read_settings(Roots(), {})
