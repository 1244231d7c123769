"""timm is imported wherever torchvision's Python half is there, and what is wrong otherwise is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from segplug_foundation.timm_library import import_torchvision, timm

SOUND = ""
UNKNOWN = "raise RuntimeError('something else')"
FOR_EVER = "raise RuntimeError('operator torchvision::nms does not exist')"

SCRIPT = """
import sys
from segplug.errors import PluginError
from segplug_foundation.timm_library import import_torchvision, timm
sys.path.insert(0, sys.argv[1])
try:
    print(import_torchvision())
    import torchvision
    print(torchvision.__file__.startswith(sys.argv[1]))
    sys.exit()
except RuntimeError as error:
    print(error)
try:
    timm()
except PluginError as error:
    print(error)
"""


def test_timm_is_there_and_torchvision_is_the_real_one() -> None:
    declared = import_torchvision()
    import torchvision

    assert timm().create_model
    assert timm().layers.FrozenBatchNormAct2d
    assert (Path(torchvision.__file__).parent / "ops" / "boxes.py").is_file()
    # a second time nothing is left to be done
    assert declared == []


def test_operators_that_are_not_there_are_not_made_up() -> None:
    timm()
    import torch
    import torchvision

    if torchvision.extension._has_ops():
        assert torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5).tolist() == [0]
    else:
        with pytest.raises(RuntimeError, match="Couldn't load custom C\\+\\+ ops"):
            torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)


@pytest.mark.parametrize(
    ("torchvision", "told"),
    [
        (SOUND, ["[]", "True"]),
        (UNKNOWN, ["something else", "timm cannot be imported: RuntimeError: something else"]),
        (FOR_EVER, ["torchvision::nms does not exist", "pip install --force-reinstall torch torchvision"]),
    ],
    ids=["sound", "broken in another way", "broken for ever"],
)
def test_other_torchvisions(tmp_path: Path, torchvision: str, told: list[str]) -> None:
    """A sound one is left alone; one that cannot be helped is an error that says what to install."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(torchvision)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, check=True, timeout=300
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(told)
    for line, part in zip(lines, told, strict=True):
        assert part in line


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, segplug_foundation, segplug_foundation.planner, segplug_foundation.command; "
        "print([name for name in ('torch', 'timm', 'torchvision', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
