"""The conformance suites: every built-in component passes them, and each check notices what it is there for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segplug import Component, hookimpl
from segplug.cli.plugin_checks import check_plugins
from segplug.cli.shell import Format
from segplug.errors import DataError, PluginError, UsageError
from segplug.kernel import KINDS, Kernel
from segplug.model import Geometry, Image, Labels, LabelSet, Split
from segplug.testing import BoundCheck, conformance
from segplug.testing.conformance import CHECKS, State

KERNEL = Kernel(discover=False)

SLOW = {"trainers", "predictors", "executors"}
LEFT_OUT = {
    ("resamplers", "none"): "leaves images as they are, whatever shape is wanted: that is what it is for",
}
"""Built-in components that are made not to do what their kind does."""

PRIMUS = {"patch_size": [32, 32, 32], "embed_dim": 48, "eva_depth": 2, "eva_numheads": 4}
OPTIONS = {("architectures", name): PRIMUS for name in ("primus", "primus_v2", "primus_v3")}


def builtin_checks() -> Iterator[Any]:
    for kind in KINDS:
        for name in KERNEL.registry.names(kind):
            if (kind, name) in LEFT_OUT or (kind == "trainers" and name not in ("nnunet", "short")):
                continue
            marks = [pytest.mark.slow] if kind in SLOW else []
            for number, bound in enumerate(conformance(kind, name, OPTIONS.get((kind, name)), kernel=KERNEL)):
                yield pytest.param(bound, id=f"{kind}-{name}-{number}", marks=marks)


@pytest.mark.parametrize("check", list(builtin_checks()))
def test_builtin_components_conform(check: BoundCheck) -> None:
    check()


def test_every_kind_has_checks() -> None:
    assert not [kind for kind, checks in CHECKS.items() if not checks]


def test_an_unknown_component_is_an_error() -> None:
    with pytest.raises(PluginError, match="no component 'dice_focall'"):
        conformance("losses", "dice_focall", kernel=KERNEL)


# one wrong component for each check that is not about files of a format


def constant_zero(channel: Any, mask: Any, statistics: Any) -> Any:
    return channel.astype(np.float64)


def divides(channel: Any, mask: Any, statistics: Any) -> Any:
    with np.errstate(all="ignore"):
        return ((channel - channel.mean()) / channel.std()).astype(np.float32)


def too_small(array: Any, new_shape: Sequence[int], spacing: Any, new_spacing: Any) -> Any:
    return array[:, : new_shape[0], : new_shape[1], : new_shape[2]]


def leaky(cases: Sequence[str]) -> list[Split]:
    half = len(cases) // 2
    return [Split(tuple(cases), tuple(cases[:half])), Split(tuple(cases[:half]), tuple(cases[half:]))]


class Constant:
    def __call__(self, logits: Any, target: Any) -> Any:
        return logits.sum() * 0 + 1


class Overflowing:
    def __call__(self, logits: Any, target: Any) -> Any:
        right = logits.exp().gather(1, target.long()) / logits.exp().sum(1, keepdim=True)
        return -right.log().mean()


class Forgetful:
    """An augmentation that draws from NumPy's global state."""

    def __init__(self, context: Any) -> None:
        self.size = context.patch_size

    def source_size(self) -> Any:
        return self.size

    def draw(self, random: Any) -> Any:
        return {"factor": np.random.rand()}  # noqa: NPY002

    def needed_size(self, parameters: Any) -> Any:
        return tuple(2 * each for each in self.size)

    def __call__(self, batch: Any, parameters: Any) -> Any:
        return dataclasses.replace(batch, data=batch.data.mul_(2), target=batch.target + 5)


def deaf(parameters: Any, *, lr: float, weight_decay: float) -> Any:
    """An optimiser that keeps the learning rate it was made with."""
    import torch

    class Deaf(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                group["lr"] = lr
            return super().step(closure)

    return Deaf(parameters, lr=lr)


def rising(lr: float, *, epoch: int, epochs: int, iteration: int, iterations: int) -> float:
    return lr * (1 + epoch)


@dataclass
class Thawed:
    epochs: int = 1

    def train(self, task: Any) -> None:
        pass


class Careless:
    """A postprocessor whose decision is no JSON, and which works in place."""

    def fit(self, pairs: Any, labels: LabelSet) -> Mapping[Any, Any]:
        return {1: np.float32(2.0)}

    def apply(self, prediction: Labels, decision: Any, labels: LabelSet) -> Labels:
        prediction.array[...] = 9
        return prediction


def _made_within() -> Any:
    def hidden_reader(paths: Sequence[Path]) -> Image:
        return Image(np.zeros((1, 1, 2, 2), np.float32), Geometry((999.0, 1.0, 1.0)))

    return hidden_reader


def shy(channel: Any, mask: Any, statistics: Any) -> Any:
    if statistics is None:
        raise KeyError("mean")
    return channel - statistics.mean


def needs_logits(logits: Any, target: Any) -> Any:
    """A loss where what makes one is wanted."""
    return logits.mean()


def integer(comparison: Any) -> Any:
    return int(comparison.tp)


def zero_for_nothing(comparison: Any) -> float:
    return 0.0


class Amnesia:
    """A store that loses what it is given."""

    def __init__(self, folder: Path, patch_size: Any) -> None:
        pass

    def cases(self) -> list[str]:
        return []

    def write(self, name: str, case: Any, made_from: Any) -> None:
        pass

    def made_from(self, name: str) -> Any:
        return {}

    def open(self, name: str) -> Any:
        raise KeyError(name)


class Dropping:
    """An executor that drops what fails."""

    def __init__(self, workers: int) -> None:
        pass

    def map(self, function: Callable[[Any], Any], items: Any) -> Iterator[Any]:
        from segplug.protocols import Outcome

        for index, item in enumerate(items):
            try:
                yield Outcome(index, function(item))
            except ValueError:
                continue

    def close(self) -> None:
        pass


def one_dimension(input_channels: int, output_channels: int, *, deep_supervision: bool) -> Any:
    """A network with a weight that nothing uses, of random output, which forgets the batch's size."""
    import torch
    from torch import nn

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv3d(input_channels, output_channels, 1)
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, data: Any) -> Any:
            return self.convolution(data).sum(0, keepdim=True) + torch.rand(1)

    return Odd()


def careless_reader(paths: Sequence[Path]) -> Image:
    return Image(np.zeros((1, 2, 2, 2)), Geometry((1.0, 1.0, 1.0)))


def anything(source: Path) -> Any:
    return None


class Uphill:
    """A loss whose gradient leads away from the truth where that is background."""

    def __call__(self, logits: Any, target: Any) -> Any:
        right = logits.log_softmax(1).gather(1, target).mean()
        return -right if target.any() else 1 + 0.001 * (right - 2 * right.detach())


def same_plan(fingerprint: Any, dataset: Any, budget: Any) -> Any:
    return {"patch_size": [8, 8, 8]}


def no_parameters() -> Any:
    """An architecture of the wrong signature."""


def mistaken(input_channels: int, output_channels: int, *, deep_supervision: bool) -> Any:
    """An architecture that fails in a call of its own."""

    def part(width: int) -> None:
        raise AssertionError(width)

    return part()  # type: ignore[call-arg]


class Quitting:
    """A loss that ends the program."""

    def __call__(self, logits: Any, target: Any) -> Any:
        raise SystemExit(3)


WRONG: list[tuple[str, Any, int]] = [
    ("normalizers", constant_zero, 1),
    ("normalizers", divides, 1),
    ("normalizers", shy, 1),
    ("resamplers", too_small, 2),
    ("planners", same_plan, 4),
    ("splitters", leaky, 1),
    ("architectures", one_dimension, 5),
    ("architectures", no_parameters, 5),
    ("architectures", mistaken, 5),
    ("losses", Quitting, 4),
    ("losses", Constant, 2),
    ("losses", Overflowing, 1),
    ("losses", Uphill, 1),
    ("losses", needs_logits, 6),
    ("augmentations", Forgetful, 4),
    ("optimizers", deaf, 1),
    ("schedules", rising, 1),
    ("trainers", Thawed, 1),
    ("postprocessors", Careless, 2),
    ("metrics", integer, 2),
    ("metrics", zero_for_nothing, 1),
    ("stores", Amnesia, 3),
    ("executors", Dropping, 1),
    ("readers", careless_reader, 2),
    ("readers", _made_within(), 3),
    ("converters", anything, 1),
]
"""Kind, wrong component, and how many checks at least it has to fail."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "factory", "least"), WRONG, ids=lambda each: getattr(each, "__name__", str(each)))
def test_wrong_components_are_found_out(kind: str, factory: Any, least: int) -> None:
    class Plugin:
        pass

    def provide() -> list[Component[Any]]:
        return [Component("wrong", factory, "wrong")]

    provide.__name__ = f"segplug_{kind}"
    plugin = Plugin()
    setattr(plugin, f"segplug_{kind}", hookimpl(provide))
    kernel = Kernel(discover=False)
    kernel.register(plugin, "mistaken")
    findings = [bound.finding() for bound in conformance(kind, "wrong", kernel=kernel)]
    failed = [each for each in findings if each.state is State.FAILED]
    assert len(failed) >= least, [(each.state.value, each.statement, each.explanation) for each in findings]
    assert all(each.explanation for each in failed)


def build_for_patch(input_channels: int, output_channels: int, *, deep_supervision: bool, patch_size: Any) -> Any:
    """A network that is made for one patch, and takes no patch of 32."""
    from torch import nn

    if patch_size[0] == 32:
        raise DataError("expected another patch")
    return nn.Conv3d(input_channels, output_channels, 1)


def build_of_width(input_channels: int, output_channels: int, *, deep_supervision: bool, width: int) -> Any:
    """A network with an option that only its planner knows."""


def build_of_options(input_channels: int, output_channels: int, *, deep_supervision: bool, **options: Any) -> Any:
    return build_of_width(input_channels, output_channels, deep_supervision=deep_supervision, **options)


def flat_near_one(regions: bool = False) -> Callable[[Any, Any], Any]:
    """Tversky's loss: where there is no foreground it is 1 less a millionth."""
    if regions:
        raise ValueError("labels only")
    return _tversky


def _tversky(logits: Any, target: Any) -> Any:
    probability, truth = logits.softmax(1)[:, 1:], target > 0
    overlap, missed = (probability * truth).sum(), (probability * ~truth).sum() + ((1 - probability) * truth).sum()
    return 1 - (overlap + 1e-5) / (overlap + missed + 1e-5)


@pytest.mark.parametrize(
    ("kind", "component", "options", "states"),
    [
        ("architectures", build_for_patch, {}, {State.SKIPPED}),
        ("architectures", build_for_patch, {"patch_size": (16, 16, 16)}, {State.PASSED}),
        ("architectures", build_of_width, {}, {State.SKIPPED}),
        ("architectures", build_of_options, {}, {State.SKIPPED}),
        ("losses", flat_near_one, {}, {State.PASSED, State.SKIPPED}),
    ],
    ids=["another patch is needed", "the patch is offered", "an option", "options", "a fall too small for float32"],
)
def test_right_components_are_not_blamed(
    kind: str, component: Any, options: dict[str, Any], states: set[State]
) -> None:
    class Plugin:
        pass

    def provide() -> list[Component[Any]]:
        return [Component("right", component, "right")]

    provide.__name__ = f"segplug_{kind}"
    plugin = Plugin()
    setattr(plugin, f"segplug_{kind}", hookimpl(provide))
    kernel = Kernel(discover=False)
    kernel.register(plugin, "careful")
    findings = [bound.finding() for bound in conformance(kind, "right", kernel=kernel, **options)]
    assert {each.state for each in findings} <= states, findings


def test_reader_and_writer_find_each_other_by_their_qualified_names() -> None:
    """`plugins check` asks for them so. The ending is the one that a choice hook knows, the name, or given."""

    class Plugin:
        @hookimpl
        def segplug_readers(self) -> list[Component[Any]]:
            return [Component("npy", "segplug.testing.examples.example_readers:read_npy", "arrays")]

        @hookimpl
        def segplug_writers(self) -> list[Component[Any]]:
            return [Component("npy", "segplug.testing.examples.example_writers:write_npy", "arrays")]

    kernel = Kernel(discover=False)
    kernel.register(Plugin(), "mine")
    for kind in ("readers", "writers"):
        for ending in ("", ".array"):
            findings = [each.finding() for each in conformance(kind, "mine:npy", kernel=kernel, ending=ending)]
            states = {each.state for each in findings}
            # the example's spacing is always 1 mm: its round trip is made, and fails
            assert states == ({State.PASSED} if kind == "readers" else {State.PASSED, State.FAILED}), findings


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_a_component_that_ends_the_program_is_a_failed_row(
    end: type[BaseException], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"ends_by_{end.__name__}"
    (tmp_path / f"{module}.py").write_text(f"raise {end.__name__}(7)\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    class Plugin:
        @hookimpl
        def segplug_schedules(self) -> list[Component[Any]]:
            return [Component("ending", f"{module}:schedule", ""), Component("rising", rising, "")]

    kernel = Kernel(discover=False)
    kernel.register(Plugin(), "mine")
    if end is KeyboardInterrupt:  # the user's own
        with pytest.raises(KeyboardInterrupt):
            check_plugins(kernel, None, None, Format.TABLE, ending="", patch_size=())
        return
    assert check_plugins(kernel, None, None, Format.TABLE, ending="", patch_size=()) >= 2
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert {row[2] for row in rows if row[1] == "mine:ending"} == {"failed"}
    assert "mine:rising" in {row[1] for row in rows}
    assert any("SystemExit: 7" in row[4] for row in rows)


def test_plugins_without_components_are_no_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    class Plugin:
        @hookimpl
        def segplug_epoch_finished(self) -> None:
            pass

    kernel = Kernel(discover=False)
    kernel.register(Plugin(), "listener")
    for name in ("listener", None):
        assert check_plugins(kernel, name, None, Format.TABLE, ending="", patch_size=()) == 0
        told = "".join(capsys.readouterr())
        assert "No component is in listener: events and commands have no conformance suite" in told
        assert "nothing was checked" in told
    with pytest.raises(UsageError, match="'listner'"):
        check_plugins(kernel, "listner", None, Format.TABLE, ending="", patch_size=())
