"""What becomes of plugins: active, broken, incompatible or blocked, and never the end of the program."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from email.message import Message
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from segplug import Component, hookimpl
from segplug.errors import DataError, PluginError
from segplug.kernel import Kernel, State
from segplug.kernel.plugins import installed_plugins
from segplug.kernel.provenance import differences


class Installed(Distribution):
    """Metadata of a distribution that is not there."""

    def __init__(self, name: str, version: str, *points: tuple[str, str]) -> None:
        self._name, self._version = name, version
        self._points = [EntryPoint(point, value, "segplug") for point, value in points]

    @property
    def metadata(self) -> Any:
        message = Message()
        message["Name"], message["Version"] = self._name, self._version
        return message

    @property
    def version(self) -> str:
        return self._version

    @property
    def entry_points(self) -> Any:
        return self._points

    def read_text(self, filename: str) -> str | None:
        return None

    def locate_file(self, path: Any) -> Path:
        return Path(path)


@pytest.fixture
def kernel_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kernel]:
    """A kernel that finds these distributions, with these modules to import."""

    def build(*found: Distribution, block: tuple[str, ...] = (), **modules: ModuleType) -> Kernel:
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr("segplug.kernel.plugins.distributions", lambda: found)
        return Kernel(block=block)

    return build


def module(name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    for key, value in content.items():
        setattr(made, key, value)
    return made


@hookimpl
def segplug_schedules() -> Iterator[Component[Any]]:
    yield Component("flat", "focal.schedule:flat", "flat")


def test_installed_plugins_come_in_a_fixed_order_and_once() -> None:
    a, b = Installed("segplug-a", "1", ("x", "xa")), Installed("segplug-b", "1", ("w", "wb"), ("x", "xb"))
    copy = Installed("segplug-a", "2", ("x", "xa"))  # further down the path: not what an import finds
    for order in ([a, b, copy], [b, a, copy]):
        found = installed_plugins(order)
        assert [(r.distribution, r.version, r.name) for r in found] == [
            ("segplug-a", "1", "x"),
            ("segplug-b", "1", "w"),
            ("segplug-b", "1", "x"),
        ]


def test_active(kernel_of: Callable[..., Kernel]) -> None:
    focal = module("focal", segplug_schedules=segplug_schedules)
    kernel = kernel_of(Installed("segplug-focal", "1.0", ("focal", "focal")), focal=focal)
    record = kernel.plugins[-1]
    assert (record.state, record.reason, record.hooks) == (State.ACTIVE, "", ("segplug_schedules",))
    assert kernel.registry.find("schedules", "flat").plugin == record


def test_entry_point_may_name_an_object(kernel_of: Callable[..., Kernel]) -> None:
    focal = module("focal", plugin=module("inner", segplug_schedules=segplug_schedules))
    kernel = kernel_of(Installed("segplug-focal", "1.0", ("focal", "focal:plugin")), focal=focal)
    assert kernel.plugins[-1].state is State.ACTIVE


@pytest.mark.parametrize("raised", [ImportError("no CUDA"), SystemExit("needs a display"), ZeroDivisionError("oops")])
def test_broken_at_import(
    kernel_of: Callable[..., Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException
) -> None:
    (tmp_path / "raises_at_import.py").write_text(f"raise {raised!r}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kernel = kernel_of(Installed("segplug-x", "1.0", ("x", "raises_at_import")))
    record = kernel.plugins[-1]
    assert record.state is State.BROKEN
    assert record.reason == f"cannot be imported: {type(raised).__name__}: {raised}"
    with pytest.raises(PluginError, match=r"The plugin 'x' \(segplug-x 1.0\) is broken: cannot be imported"):
        kernel.registry.find("losses", "x:focal")
    assert kernel.registry.find("losses", "dice_ce")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"segplug_losses": hookimpl(lambda: [42])}, "segplug_losses yielded 42; expected segplug.Component"),
        ({"segplug_losses": hookimpl(lambda: 1 / 0)}, "ZeroDivisionError"),
        ({"segplug_losses": hookimpl(lambda: sys.exit("no licence"))}, "SystemExit: no licence"),
        ({"segplug_losses": hookimpl(lambda: [Component("a:b", "m:x", "")])}, "'a:b' is no component name"),
        ({"segplug_losses": hookimpl(lambda: [Component(" ", "m:x", "")])}, "is no component name"),
        ({"segplug_losses": hookimpl(lambda: [Component("a", "m:x", "", aliases="b")])}, "expected a tuple of names"),
        (
            {"segplug_losses": hookimpl(lambda: [Component("a", "m:x", ""), Component("b", "m:x", "", ("a",))])},
            "segplug_losses yields ['a'] more than once",
        ),
        (
            {"segplug_loses": hookimpl(lambda: None)},
            "unknown hook 'segplug_loses' in plugin 'odd'. Did you mean 'segplug_losses'?",
        ),
        ({"segplug_losses": hookimpl(lambda wrong: [])}, "wrong"),
        ({"segplug_losses": lambda: None}, "implements no hook: is @hookimpl missing"),
    ],
)
def test_broken_hooks(kernel_of: Callable[..., Kernel], content: dict[str, Any], expected: str) -> None:
    @hookimpl
    def segplug_checkpoint_written(path: Path) -> None:
        raise AssertionError("a broken plugin is not called")

    plugin = module(
        "odd", segplug_schedules=segplug_schedules, segplug_checkpoint_written=segplug_checkpoint_written, **content
    )
    if "missing" in expected:
        del plugin.segplug_schedules, plugin.segplug_checkpoint_written
    kernel = kernel_of(Installed("segplug-odd", "1.0", ("odd", "odd")), odd=plugin)
    record = kernel.plugins[-1]
    assert record.state is State.BROKEN
    assert expected in record.reason
    assert record.hooks == ()
    # nothing of a broken plugin is used
    assert "flat" not in kernel.registry.names("schedules")
    kernel.emit("segplug_checkpoint_written", path=Path("x"), epoch=1)


def test_hooks_cannot_be_wrapped(kernel_of: Callable[..., Kernel]) -> None:
    @hookimpl(wrapper=True)
    def segplug_choose_reader(path: Path) -> Any:
        return (yield)

    odd = module("odd", segplug_choose_reader=segplug_choose_reader)
    record = kernel_of(Installed("segplug-odd", "1.0", ("odd", "odd")), odd=odd).plugins[-1]
    assert (record.state, record.reason) == (
        State.BROKEN,
        "segplug_choose_reader is a hook wrapper; segplug's hooks cannot be wrapped",
    )


def test_hooks_of_a_later_segplug_may_be_marked_optional(kernel_of: Callable[..., Kernel]) -> None:
    later = module("later", segplug_schedules=segplug_schedules, segplug_tea=hookimpl(optionalhook=True)(lambda: None))
    record = kernel_of(Installed("segplug-later", "1.0", ("later", "later")), later=later).plugins[-1]
    assert record.state is State.ACTIVE


def test_incompatible(kernel_of: Callable[..., Kernel]) -> None:
    future = module("future", segplug_api_version=2, segplug_schedules=segplug_schedules)
    kernel = kernel_of(Installed("segplug-future", "1.0", ("future", "future")), future=future)
    assert kernel.plugins[-1].state is State.INCOMPATIBLE
    assert "flat" not in kernel.registry.names("schedules")
    with pytest.raises(PluginError, match="speaks plugin API version 2; this segplug speaks 1"):
        kernel.registry.find("schedules", "future:flat")


def test_an_unknown_name_counts_what_cannot_be_used(kernel_of: Callable[..., Kernel]) -> None:
    found = (Installed(f"segplug-{n}", "1", ("x" if n < "c" else n, "not_to_be_imported")) for n in "abc")
    kernel = kernel_of(*found)
    with pytest.raises(PluginError) as told:
        kernel.registry.find("losses", "dice_cee")
    assert str(told.value).endswith(" Plugins that cannot be used: 3; see `segplug plugins list`.")
    with pytest.raises(PluginError) as told:
        kernel.registry.find("losses", "x:focal")
    assert str(told.value).count("the name 'x' is also claimed by") == 2
    assert "plugins list" not in str(told.value)


def test_blocked_is_not_even_imported(kernel_of: Callable[..., Kernel]) -> None:
    kernel = kernel_of(Installed("segplug-x", "1.0", ("x", "not_to_be_imported")), block=("x", "y"))
    assert kernel.plugins[-1].state is State.BLOCKED
    with pytest.raises(PluginError, match="is blocked: blocked in the settings"):
        kernel.registry.find("losses", "x:focal")
    assert kernel.registry.problems() == ["[plugins] block: no plugin 'y' is installed"]


@pytest.mark.parametrize("block", [(), ("builtin",)])
def test_nobody_else_is_built_in(kernel_of: Callable[..., Kernel], block: tuple[str, ...]) -> None:
    kernel = kernel_of(Installed("segplug-evil", "1.0", ("builtin", "not_to_be_imported")), block=block)
    assert [(r.name, r.builtin) for r in kernel.plugins] == [("builtin", True), ("builtin@segplug-evil", False)]
    assert kernel.plugins[0].state is State.ACTIVE
    assert kernel.plugins[1].state is (State.BLOCKED if block else State.BROKEN)


def test_two_distributions_with_one_plugin_name_are_both_left_out(kernel_of: Callable[..., Kernel]) -> None:
    found = Installed("segplug-a", "1", ("x", "not_to_be_imported")), Installed("segplug-b", "2", ("x", "focal"))
    kernel = kernel_of(*found)
    assert [r.state for r in kernel.plugins[1:]] == [State.BROKEN, State.BROKEN]
    assert "also claimed by segplug-b 2; block one ('x@segplug-a' or 'x@segplug-b')" in kernel.plugins[1].reason
    kernel = kernel_of(*found, block=("x@segplug-a",), focal=module("focal", segplug_schedules=segplug_schedules))
    assert {r.name: r.state for r in kernel.plugins[1:]} == {"x@segplug-a": State.BLOCKED, "x": State.ACTIVE}
    assert kernel.registry.problems() == []


def test_register_says_what_is_wrong(plugin: Callable[..., object]) -> None:
    kernel = Kernel(discover=False)
    with pytest.raises(PluginError, match="plugin 'mine' cannot be registered: implements no hook"):
        kernel.register(object(), "mine")
    assert kernel.register(plugin(segplug_stage_started=lambda stage: None), "other").state is State.ACTIVE
    with pytest.raises(PluginError, match=r"plugin 'other' .* is registered already"):
        kernel.register(plugin(segplug_stage_started=lambda stage: None), "other")
    with pytest.raises(PluginError, match="is registered already"):
        kernel.register(plugin(segplug_stage_started=lambda stage: None), "builtin")


# --- choice and event hooks ----------------------------------------------------------------------------------------


def test_choices_stop_at_the_first_answer_and_the_built_in_answers_last(plugin: Callable[..., object]) -> None:
    asked = []

    def choose(channel_name: str) -> str | None:
        asked.append(channel_name)
        return "mine" if channel_name == "PET" else None

    kernel = Kernel(discover=False)
    kernel.register(plugin(segplug_choose_normalizer=choose), "other")
    assert kernel.choose("segplug_choose_normalizer", channel_name="PET") == "mine"
    assert kernel.choose("segplug_choose_normalizer", channel_name="CT") == "CTNormalization"
    assert asked == ["PET", "CT"]


def test_a_choice_that_fails_names_the_plugin(plugin: Callable[..., object]) -> None:
    def refuse(path: Path) -> str:
        raise DataError(f"{path}: no such thing")

    for answer, raised, expected in (
        (lambda path: 1 / 0, PluginError, "plugin 'other' failed in segplug_choose_reader: ZeroDivisionError"),
        (lambda path: 7, PluginError, "answered 7; expected a component's name or None"),
        (refuse, DataError, "x.nii: no such thing"),
    ):
        kernel = Kernel(discover=False)
        kernel.register(plugin(segplug_choose_reader=answer), "other")
        with pytest.raises(raised, match=expected):
            kernel.choose("segplug_choose_reader", path=Path("x.nii"))


def test_events_reach_all_and_one_that_raises_stops_nobody(plugin: Callable[..., object]) -> None:
    heard: list[Any] = []

    def fail(path: Path) -> None:
        raise RuntimeError("no disk")

    kernel = Kernel(discover=False)
    kernel.register(plugin(segplug_checkpoint_written=lambda path, epoch: heard.append((path, epoch))), "first")
    kernel.register(plugin(segplug_checkpoint_written=fail), "failing")
    kernel.register(plugin(segplug_checkpoint_written=lambda epoch: heard.append(-epoch)), "last")
    with pytest.warns(
        RuntimeWarning, match="plugin 'failing' failed in segplug_checkpoint_written: RuntimeError: no disk"
    ):
        kernel.emit("segplug_checkpoint_written", path=Path("x"), epoch=3)
    assert heard == [-3, (Path("x"), 3)]


def test_our_own_wrong_call_of_a_hook_is_found() -> None:
    with pytest.raises(TypeError, match="segplug_checkpoint_written takes path, epoch; given: epoch"):
        Kernel(discover=False).emit("segplug_checkpoint_written", epoch=3)


RECORDED = [{"kind": "losses", "name": "focal", "plugin": "x", "distribution": "segplug-x", "version": "1.0"}]


@pytest.mark.parametrize(
    ("installed", "block", "expected"),
    [
        (("segplug-x",), ("x",), "remove it from block in segplug.toml"),
        (("segplug-x", "segplug-y"), (), "block one ('x@segplug-x' or 'x@segplug-y')"),
        (("segplug-x",), (), "cannot be imported: ModuleNotFoundError"),
        (("segplug-y",), ("x",), "Install it: pip install segplug-x==1.0"),
        ((), (), "Install it: pip install segplug-x==1.0"),
    ],
)
@pytest.mark.parametrize("builtin", [False, True])
def test_what_is_installed_is_not_said_to_be_installed(
    kernel_of: Callable[..., Kernel], installed: tuple[str, ...], block: tuple[str, ...], expected: str, builtin: bool
) -> None:
    found = (Installed(name, "1.0", ("x", "not_to_be_imported")) for name in installed)
    registry = kernel_of(*found, block=block).registry
    recorded = [{**entry, "name": "dice_ce"} for entry in RECORDED] if builtin else RECORDED
    (text,) = differences(recorded, registry)
    assert ("pip install" in text) == ("pip install" in expected and not builtin)
    assert expected in text or "pip install" in expected
