"""Files are there whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplug.errors import DataError
from segplug.runtime.files import (
    PARTIAL,
    copy,
    file_hash,
    file_state,
    finite_or_none,
    read_json,
    remove,
    remove_partials,
    replacing,
    value_hash,
    write_json,
    write_text,
)
from segplug.runtime.folder_lock import working_in


def test_what_fails_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_text(path, "old")
    with pytest.raises(ValueError, match="never comes"), replacing(path) as partial:
        _half(partial)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def _half(path: Path) -> None:
    path.write_text("half of the new")
    raise ValueError("the other half never comes")


def test_the_partial_file_is_beside_and_keeps_the_ending(tmp_path: Path) -> None:
    with replacing(tmp_path / "case.nii.gz") as partial:
        assert partial.parent == tmp_path
        assert partial.name.startswith(PARTIAL)
        assert partial.name.endswith("case.nii.gz")
        partial.write_bytes(b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["case.nii.gz"]


WRITER = """
import sys
from pathlib import Path
from segplug.runtime.files import write_json
print("ready", flush=True)
number = 0
while True:
    number += 1
    write_json(Path(sys.argv[1]), {"number": number, "filler": ["x" * 100] * 2000, "again": number})
"""


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for delay in (0.05, 0.11, 0.17):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if path.exists():
            content = json.loads(path.read_text())
            assert content["number"] == content["again"]
    assert path.exists()


def test_numpy_values_become_plain(tmp_path: Path) -> None:
    value = {
        "scalar": np.float32(0.5),
        "array": np.arange(3),
        "set": {3, 1, 2},
        "path": Path("a") / "b",
        "flag": np.bool_(True),
    }
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == {
        "scalar": 0.5,
        "array": [0, 1, 2],
        "set": [1, 2, 3],
        "path": "a/b",
        "flag": True,
    }
    with pytest.raises(TypeError, match="object has no JSON form"):
        write_json(tmp_path / "b.json", object())
    assert not (tmp_path / "b.json").exists()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "long.json").write_text("9" * 5000)
    damaged = [(f"{name}.json", "not a JSON file") for name in ("a", "b", "deep", "long")]
    for name, expected in (*damaged, ("c.json", "no such file")):
        with pytest.raises(DataError, match=expected) as error:
            read_json(tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=3), values, max_size=4))
def test_value_hash_is_of_the_value_not_of_its_order(value: dict[str, object]) -> None:
    turned = dict(reversed(list(value.items())))
    assert value_hash(turned) == value_hash(value)
    assert value_hash({**value, "one more key": 1}) != value_hash(value)


def test_what_a_killed_writer_left_can_be_removed(tmp_path: Path) -> None:
    for name in (
        f"{PARTIAL}0123456789ab-a[1].json",
        f"{PARTIAL}0123456789ab-b.json",
        f"{PARTIAL}a[1].json",
        "a[1].json",
    ):
        (tmp_path / name).write_text("x")
    remove_partials(tmp_path / "a[1].json")
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {f"{PARTIAL}0123456789ab-b.json", f"{PARTIAL}a[1].json", "a[1].json"}


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_finite_or_none() -> None:
    assert [finite_or_none(v) for v in (1.5, float("nan"), float("inf"))] == [1.5, None, None]


def make_folder(path: Path, **contents: str) -> Path:
    for name, text in contents.items():
        (path / name / "0").mkdir(parents=True)
        (path / name / "0" / "chunk").write_text(text)
    return path


def contents(path: Path) -> dict[str, str]:
    return {p.relative_to(path).as_posix(): p.read_text() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("before", ["nothing", "file", "folder"])
def test_a_folder_replaces_what_was_there(tmp_path: Path, before: str) -> None:
    path = tmp_path / "case.zarr"
    if before == "file":
        path.write_text("old")
    elif before == "folder":
        make_folder(path, old="old")
    with replacing(path) as partial:
        make_folder(partial, new="new")
    assert contents(path) == {"new/0/chunk": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["case.zarr"]
    with pytest.raises(IsADirectoryError), replacing(path) as partial:
        partial.write_text("a file")
    assert contents(path) == {"new/0/chunk": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["case.zarr"]


def test_half_a_folder_leaves_the_old_one(tmp_path: Path) -> None:
    path = make_folder(tmp_path / "case.zarr", old="old")
    with pytest.raises(ValueError, match="never comes"), replacing(path) as partial:
        _half_a_folder(partial)
    make_folder(tmp_path / f"{PARTIAL}0123456789ab-case.zarr", left="by a crash")
    remove_partials(path)
    assert [p.name for p in tmp_path.iterdir()] == ["case.zarr"]
    assert contents(path) == {"old/0/chunk": "old"}


def _half_a_folder(path: Path) -> None:
    make_folder(path, new="new")
    raise ValueError("the other half never comes")


def test_a_folder_has_a_hash_and_a_state(tmp_path: Path) -> None:
    path = make_folder(tmp_path / "a", one="1", two="2")
    same = tmp_path / "same"
    copy(path, same)
    assert file_hash(same) == file_hash(path)
    assert file_state(same) == file_state(path)
    assert file_state(path).size == 2
    (same / "two" / "0" / "chunk").write_text("3")
    assert file_hash(same) != file_hash(path)
    assert file_state(same) != file_state(path)
    assert file_hash(make_folder(tmp_path / "b", one="1", three="2")) != file_hash(path)


def test_removing_a_link_leaves_the_folder(tmp_path: Path) -> None:
    path = make_folder(tmp_path / "a", one="1")
    link = tmp_path / "link"
    link.symlink_to(path)
    remove(link)
    remove(link)
    assert not link.exists()
    assert contents(path) == {"one/0/chunk": "1"}


def test_a_run_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    make_folder(tmp_path / f"{PARTIAL}0123456789ab-case.ome.zarr", half="half")
    (tmp_path / f"{PARTIAL}0123456789ab-case.nii.gz").write_text("half")
    (tmp_path / "case.nii.gz").write_text("whole")
    with working_in(tmp_path):
        assert [p.name for p in tmp_path.iterdir()] == ["case.nii.gz"]
