"""The inventory has all that nnunetv2 offers; what its rows say exists, and the tests that they name are tests."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.main import get_command

import segplug.model
from segplug.arrays import LoadedModel
from segplug.kernel import Kernel
from segplug.protocols import TrainingTask
from segplug_builtin.trainers.nnunet import NNUNetTrainer
from segplug_builtin.trainers.nnunet_classes import CLASSES

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = tomllib.loads((ROOT / "docs" / "inventory.toml").read_text(encoding="utf-8"))["section"]


class Row(NamedTuple):
    group: str
    names: tuple[str, ...]
    counterpart: str
    tests: tuple[str, ...]


ROWS = [Row(s["group"], tuple(r[0].split()), r[1], tuple(r[2].split())) for s in SECTIONS for r in s["rows"]]


def spans() -> Iterator[tuple[str, str]]:
    """What stands in code within counterparts, beside the names that it stands for."""
    for row in ROWS:
        yield from ((" ".join(row.names), span) for span in re.findall(r"`([^`]+)`", row.counterpart))


def test_every_row_has_a_counterpart_and_a_test() -> None:
    wrong = [row for row in ROWS if not (row.names and row.counterpart and row.tests)]
    assert not wrong
    assert not [row.names for row in ROWS if "not yet" in row.counterpart]
    assert not [row.names for row in ROWS if row.counterpart.startswith("none") and len(row.counterpart) < 20]


def test_every_test_named_is_one_that_pytest_collects(request: pytest.FixtureRequest) -> None:
    named = {f"tests/{test}" for row in ROWS for test in row.tests}
    found = {item.nodeid.partition("[")[0] for item in request.session.items}
    if not named <= found:  # only a part of the tests runs: ask
        files = sorted({test.partition("::")[0] for test in named} & {str(f.relative_to(ROOT)) for f in all_tests()})
        ask = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
        done = subprocess.run(ask, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stdout
        found = {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}
        assert len(found) > 100
    assert not sorted(named - found), "no such tests"


def all_tests() -> Iterator[Path]:
    return (ROOT / "tests").rglob("test_*.py")


def options_of(span: str) -> Iterator[set[str]]:
    """All names of each option in `COMMAND ... --option`; the command and the options have to exist."""
    from segplug.cli.main import app

    words = span.split()
    command: Any = get_command(app)
    while words and hasattr(command, "list_commands"):
        found = command.get_command(None, words.pop(0))
        assert found is not None, span
        command = found
    known = [{*parameter.opts, *parameter.secondary_opts} for parameter in command.params]
    for word in words:
        if word.startswith("-"):
            names = [names for names in known if word in names]
            assert names, f"{span}: no option {word}"
            yield names[0]


def commands_named(row: Row) -> list[str]:
    from segplug.cli.main import COMMANDS

    return [span for span in re.findall(r"`([^`]+)`", row.counterpart) if span.split()[0] in COMMANDS]


def test_commands_and_options_named_exist() -> None:
    mentioned = {span for row in ROWS for span in commands_named(row)}
    assert len(mentioned) > 80
    for span in sorted(mentioned):
        list(options_of(span))


def test_flags_have_tests_that_give_the_option() -> None:
    """Of what stands for a flag of a command, to a command or to the function behind it."""
    checked, without = 0, []
    for row in ROWS:
        if not row.group.startswith("nnUNetv2_") or row.counterpart.startswith("none"):
            continue
        text = "".join((ROOT / "tests" / test.partition("::")[0]).read_text(encoding="utf-8") for test in row.tests)
        for span in commands_named(row):
            for names in options_of(span):
                checked += 1
                if not any(re.search(rf"[\"' ]{re.escape(name)}[\"' ]", text) for name in names):
                    without.append(f"{row.group} {' '.join(row.names)}: {span}")
    assert not without
    assert checked > 60


def test_python_names_exist() -> None:
    """`segplug.train(...)`, `LabelSet.regions`, `trainer.lr`."""
    classes = {"LoadedModel": LoadedModel, "TrainingTask": TrainingTask}
    classes |= {name: getattr(segplug.model, name) for name in ("LabelSet", "EpochReport")}
    settings = {field.name for field in fields(NNUNetTrainer)}
    checked = 0
    for names, span in spans():
        path = re.match(r"[A-Za-z_.]+", span)
        first, *rest = path[0].split(".") if path else ("",)
        if first == "segplug" and rest and rest != ["toml"]:
            value: Any = importlib.import_module("segplug")
            for part in rest:
                value = getattr(value, part, None) or importlib.import_module(f"{value.__name__}.{part}")
        elif first in classes and rest:
            known = {*dir(classes[first]), *getattr(classes[first], "__dataclass_fields__", ())}
            assert rest[0] in known, f"{names}: {span}"
        elif first == "trainer" and rest and rest[0] != "NAME":
            assert rest[0] in settings, f"{names}: {span}"
        else:
            continue
        checked += 1
    assert checked > 60


KINDS = {
    "planner": "planners",
    "normalizer": "normalizers",
    "resampler": "resamplers",
    "architecture": "architectures",
    "schedule": "schedules",
    "store": "stores",
    "postprocessor": "postprocessors",
    "losse": "losses",
    "loss": "losses",
}
PATHS = {"PlainConvUNet": "unet", "ResidualEncoderUNet": "unet"}


def test_components_exist_and_answer_to_nnunets_names() -> None:
    registry = Kernel(discover=False).registry
    checked = 0
    for row in ROWS:
        match = re.match(rf"({'|'.join(KINDS)})s? (`\w+`(?:, `\w+`)*)", row.counterpart)
        if not match:
            continue
        kind, named = KINDS[match[1]], re.findall(r"`(\w+)`", match[2])
        found = [registry.find(kind, name) for name in named]
        checked += len(found)
        if kind in {"planners", "normalizers"} and len(found) == len(row.names):
            for name, ours in zip(row.names, found, strict=True):
                assert registry.find(kind, name).component == ours.component
    assert checked > 25
    for name, module in PATHS.items():
        registry.find("architectures", f"dynamic_network_architectures.architectures.{module}.{name}")
    for row in ROWS:
        if row.group == "images" and re.fullmatch(r"`\w+`", row.counterpart):
            for kind in ("readers", "writers"):
                assert registry.find(kind, row.names[0]).component.name == row.counterpart.strip("`")


def test_trainer_classes_are_all_there_is_a_table_of() -> None:
    listed = {name for row in ROWS if row.group == "trainers" for name in row.names}
    assert listed == {*CLASSES, "nnUNetTrainer"}


@pytest.mark.parity
def test_everything_that_nnunetv2_offers_has_a_row(peer: Path, parity) -> None:
    script = Path(__file__).with_name("peer_inventory.py")
    theirs = json.loads(subprocess.run([peer, script], check=True, capture_output=True, text=True).stdout)
    offered = {(group, name) for group, names in theirs.items() for name in names}
    listed = [(row.group, name) for row in ROWS for name in row.names]
    twice = sorted({entry for entry in listed if listed.count(entry) > 1})
    missing, invented = sorted(offered - set(listed)), sorted(set(listed) - offered)
    assert not missing, f"in no row of docs/inventory.toml: {missing}"
    assert not invented, f"not in nnunetv2: {invented}"
    assert not twice
    assert len(offered) > 650
    what = "commands, flags, classes, functions, options and keys of nnunetv2 that the inventory has"
    parity(what, len(offered), len(missing), 0, section="Inventory")
