"""Stores and executors: where cases are kept, and where work is done."""

from __future__ import annotations

import pickle
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segplug.protocols import Executor, PreprocessedCase, Store
from segplug.testing.conformance.suite import Subject, check, expect, refusal

PATCH = (8, 10, 8)
PROPERTIES: dict[str, Any] = {"spacing": [2.0, 1.0, 1.0], "geometry": {"origin": [0.5, 1.0]}}
MADE_FROM = {"image": "sha256:0", "settings": {"order": 3}}


def _case(seed: int = 0) -> PreprocessedCase:
    random = np.random.default_rng(seed)
    target = random.integers(-1, 3, (1, 11, 14, 9)).astype(np.int16)
    locations: dict[int | tuple[int, ...], Any] = {1: np.argwhere(target[0] == 1).astype(np.int32)}
    locations[1, 2] = np.argwhere(target[0] > 0).astype(np.int32)
    return PreprocessedCase(random.normal(size=(2, 11, 14, 9)).astype(np.float32), target, PROPERTIES, locations)


@check("stores", "what was written is read: voxels of any box, properties, locations and manifest")
def _keeps(subject: Subject) -> None:
    case = _case()
    with tempfile.TemporaryDirectory() as folder:
        store: Store = subject.build()(Path(folder) / "store", PATCH)
        expect(store.cases() == [], f"a new store has the cases {store.cases()}")
        store.write("b_case", case, MADE_FROM)
        store.write("a_case", _case(1), MADE_FROM)
        expect(store.cases() == ["a_case", "b_case"], f"its cases are {store.cases()}; expected them sorted")
        expect(store.made_from("b_case") == MADE_FROM, f"the manifest came back as {store.made_from('b_case')}")
        opened = store.open("b_case")
        expect(
            tuple(opened.shape) == (11, 14, 9) and opened.channels == 2, f"{opened.shape}, {opened.channels} channels"
        )
        expect(dict(opened.properties) == PROPERTIES, f"the properties came back as {dict(opened.properties)}")
        for start, stop in (((0, 0, 0), (11, 14, 9)), ((3, 5, 2), (4, 14, 9)), ((2, 2, 2), (2, 5, 5))):
            box = (slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))
            data, target = opened.read(start, stop)
            same = np.array_equal(data, case.data[box]) and np.array_equal(target, case.target[box])
            expect(same, f"the box from {start} to {stop} is not what was written")
            expect(data.dtype == np.float32 and target.dtype == np.int16, f"read as {data.dtype} and {target.dtype}")
        same = opened.locations.keys() == case.locations.keys()
        expect(same, f"locations of {list(opened.locations)}; written: {list(case.locations)}")
        for key, voxels in case.locations.items():
            expect(np.array_equal(opened.locations[key], voxels), f"the locations of {key} changed")


@check("stores", "a case that is not there is refused by name, and has no manifest")
def _misses(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store: Store = subject.build()(Path(folder) / "store", PATCH)
        expect(store.made_from("nobody") is None, "there is a manifest of a case that was never written")
        refusal(lambda: store.open("nobody"), "opening a case that was never written", "nobody")


@check("stores", "another process can use it, and a case can be written again")
def _travels(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store: Store = subject.build()(Path(folder) / "store", PATCH)
        store.write("case", _case(), MADE_FROM)
        store.write("case", _case(1), {})
        pickle.dumps(store)  # workers are sent it
        there: Store = subject.build()(Path(folder) / "store", PATCH)
        data, _ = there.open("case").read((0, 0, 0), (11, 14, 9))
    expect(np.array_equal(data, _case(1).data), "the second writing did not replace the first")


def square(item: int) -> int:
    """What the workers are given to do: fails for 3."""
    if item == 3:
        raise ValueError("no square of 3 today")
    return item * item


def scaled(item: int, factor: int) -> int:
    """For work that is bound to arguments."""
    return item * factor


@check("executors", "every item has one outcome: its value, or the error that it raised")
def _maps(subject: Subject) -> None:
    for workers in (0, 2):
        executor: Executor = subject.build(workers=workers)
        try:
            outcomes = sorted(executor.map(square, range(8)), key=lambda each: each.index)
            bound = sorted(executor.map(partial(scaled, factor=5), [2, 1]), key=lambda each: each.index)
            expect(not list(executor.map(square, [])), "no items gave outcomes")
        finally:
            executor.close()
        expect([each.index for each in outcomes] == list(range(8)), f"outcomes of {[each.index for each in outcomes]}")
        values = {each.index: each.value for each in outcomes if each.error is None}
        expect(values == {n: n * n for n in range(8) if n != 3}, f"values {values} of the squares of 0 to 7")
        error = outcomes[3].error
        expect(error is not None and "no square of 3" in str(error), f"3 raised ValueError; its outcome has {error!r}")
        expect([each.value for each in bound] == [10, 5], f"a functools.partial gave {[each.value for each in bound]}")


def _reaches_workers(subject: Subject) -> None:
    built = subject.build()
    try:
        pickle.dumps(built, protocol=5)
    except Exception as error:
        raise AssertionError(
            f"it cannot be pickled: {error}. Give a function or class at the top level of a module, or an object of one"
        ) from error


for _kind in ("readers", "writers", "normalizers", "resamplers", "metrics", "postprocessors"):
    check(_kind, "it can be sent to worker processes")(_reaches_workers)
