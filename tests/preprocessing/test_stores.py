"""The Blosc2 store: exact, read by box, whole or not there, and never silently damaged."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplug.errors import DataError
from segplug.kernel import Kernel
from segplug.protocols import PreprocessedCase
from segplug.runtime.files import PARTIAL
from segplug_builtin import stores
from segplug_builtin.stores import Blosc2Store, chunk_shape

PROPERTIES = {"spacing": [1.0, 2.0, 3.0], "geometry": {"extra": {"a": [1, 2]}}}


def made(shape: tuple[int, ...] = (9, 20, 30), channels: int = 2, seed: int = 0) -> PreprocessedCase:
    random = np.random.default_rng(seed)
    target = random.integers(-1, 3, (1, *shape)).astype(np.int16)
    voxels = {1: np.argwhere(target[0] == 1), (1, 2): random.integers(0, shape, (50, 3)), 7: np.empty((0, 3))}
    return PreprocessedCase(
        random.standard_normal((channels, *shape)).astype(np.float32),
        target,
        PROPERTIES,
        {key: value.astype(np.int32) for key, value in voxels.items()},
    )


def test_round_trip(tmp_path: Path) -> None:
    store = Kernel(discover=False).registry.build("stores", "blosc2")(tmp_path / "new", (8, 16, 16))
    assert store.cases() == []
    case = made()
    store.write("b case.1", case, {"inputs": ["x"]})
    store.write("a", made(seed=1), {})
    assert store.cases() == ["a", "b case.1"]
    assert store.made_from("b case.1") == {"inputs": ["x"]}
    opened = pickle.loads(pickle.dumps(store)).open("b case.1")
    assert (opened.shape, opened.channels, opened.properties) == ((9, 20, 30), 2, PROPERTIES)
    assert opened.locations.keys() == case.locations.keys()
    for key, voxels in case.locations.items():
        assert opened.locations[key].dtype == np.int32
        assert np.array_equal(opened.locations[key], voxels)
    data, target = pickle.loads(pickle.dumps(opened)).read((0, 0, 0), opened.shape)
    assert (data.dtype, target.dtype) == (np.float32, np.int16)
    assert np.array_equal(data, case.data)
    assert np.array_equal(target, case.target)


@given(st.data())
def test_any_box_in_any_layout(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 12)] * 3))
    patch = data.draw(st.lists(st.integers(1, 16), min_size=2, max_size=3))
    case = made(shape, data.draw(st.integers(1, 3)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stores, "CHUNK_BYTES", data.draw(st.sampled_from([16, 64, 256, 4096])))
        chunk = chunk_shape(shape, patch)
        store = Blosc2Store(tmp_path_factory.mktemp("store"), patch, codec=data.draw(st.sampled_from(["LZ4", "ZSTD"])))
        store.write("a", case, {})
    assert all(1 <= c <= n for c, n in zip(chunk, shape, strict=True))
    start = [data.draw(st.integers(0, n)) for n in shape]
    stop = [data.draw(st.integers(a, n)) for a, n in zip(start, shape, strict=True)]
    box = (slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))
    found, target = store.open("a").read(start, stop)
    assert np.array_equal(found, case.data[box])
    assert np.array_equal(target, case.target[box])


def test_chunks_follow_the_patch() -> None:
    assert chunk_shape((36, 50, 35), (40, 56, 40)) == (36, 50, 35)
    for patch in ((128, 128, 128), (28, 256, 256), (160, 96, 96)):
        chunk = chunk_shape((300, 512, 512), patch)
        assert 2**15 <= np.prod(chunk) <= 2**16
        assert all(-(-p // c) * c - p < c for p, c in zip(patch, chunk, strict=True))
    assert chunk_shape((10, 256, 216), (256, 224)) == (1, 256, 216)
    assert chunk_shape((36, 50, 35), (56, 40)) == (9, 50, 35)
    assert chunk_shape((1, 12000, 12000), (512, 512)) == (1, 256, 256)


def test_only_what_a_box_covers_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "CHUNK_BYTES", 4 * 4**3)
    store = Blosc2Store(tmp_path, (4, 4, 4))
    store.write("a", made((12, 12, 12), 1), {})
    sizes = []
    pread = stores.os.pread
    monkeypatch.setattr(stores.os, "pread", lambda *a: sizes.append(a) or pread(*a))
    store.open("a").read((4, 4, 4), (8, 8, 8))
    assert len(sizes) == 2  # one chunk of the image, one of the target
    sizes.clear()
    store.open("a").read((3, 4, 4), (5, 8, 8))
    assert len(sizes) == 4


def test_a_box_outside_is_an_error(tmp_path: Path) -> None:
    store = Blosc2Store(tmp_path, (4, 4, 4))
    store.write("a", made((5, 5, 5)), {})
    with pytest.raises(ValueError, match="not inside"):
        store.open("a").read((0, 0, 0), (5, 5, 6))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    store = Blosc2Store(tmp_path_factory.mktemp("whole"), (8, 8, 8))
    store.write("a", made((6, 7, 8)), {"x": 1})
    file = store.folder / "a.case"
    return file, file.read_bytes()


def outcome(folder: Path) -> bytes:
    """All that can be read from the case, or the error."""
    opened = Blosc2Store(folder, (8, 8, 8)).open("a")
    voxels = b"".join(v.tobytes() for v in opened.locations.values())
    data, target = opened.read((0, 0, 0), opened.shape)
    return data.tobytes() + target.tobytes() + voxels + json.dumps(opened.properties).encode()


@given(st.data())
def test_every_flipped_byte_is_noticed(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    file, content = whole
    at = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(damaged)
    with pytest.raises(DataError, match=r"a\.case"):
        outcome(file.parent)


@given(st.data())
def test_every_other_length_is_noticed(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    file, content = whole
    length = data.draw(st.integers(0, len(content) - 1))
    file.write_bytes(data.draw(st.sampled_from([content[:length], content + content[:7]])))
    store = Blosc2Store(file.parent, (8, 8, 8))
    assert store.made_from("a") is None
    assert store.cases() == []
    with pytest.raises(DataError, match=r"damaged: .*Run preprocess again"):
        store.open("a")


def test_a_missing_case_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.case: no such preprocessed case. Run preprocess"):
        Blosc2Store(tmp_path, (4, 4, 4)).open("none")


def test_a_write_that_fails_leaves_the_old_case(tmp_path: Path) -> None:
    store = Blosc2Store(tmp_path, (4, 4, 4))
    store.write("a", made((5, 5, 5)), {"version": 1})
    bad = made((5, 5, 5))
    with pytest.raises(TypeError):
        store.write("a", PreprocessedCase(bad.data, bad.target, {"x": object()}, {}), {"version": 2})
    short = PreprocessedCase(bad.data, bad.target, {}, {1: np.array([[9, 9, 9]], np.int32)})
    with pytest.raises(ValueError, match="invalid entry in coordinates"):
        store.write("a", short, {"version": 2})
    assert store.made_from("a") == {"version": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.case"]


def test_half_written_files_are_no_cases(tmp_path: Path) -> None:
    store = Blosc2Store(tmp_path, (4, 4, 4))
    store.write("a", made((5, 5, 5)), {})
    (tmp_path / f"{PARTIAL}0123-b.case").write_bytes((tmp_path / "a.case").read_bytes())
    (tmp_path / "c.case").write_bytes(b"segplug")
    assert store.cases() == ["a"]
