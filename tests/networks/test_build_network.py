"""From a configuration to its network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from torch import nn

from segplug import Component, hookimpl
from segplug.errors import DataError, PluginError
from segplug.kernel import Kernel
from segplug.model import ComponentRef, Configuration, LabelSet
from segplug.runtime.network import build_network, count_input_channels

Variants = list[tuple[str, int, dict[str, Any]]]


def configuration(architecture: ComponentRef, previous_stage: str | None = None) -> Configuration:
    resample = ComponentRef("separable")
    return Configuration(
        "2d",
        "plans_2d",
        2,
        (16, 16),
        (16, 16),
        (1.0, 1.0),
        (ComponentRef("zscore"),),
        (False,),
        resample,
        resample,
        resample,
        architecture,
        previous_stage=previous_stage,
    )


class Plugin:
    @hookimpl
    def segplug_architectures(self) -> Iterable[Component[Any]]:
        yield Component("line", lambda inputs, outputs, *, deep_supervision: nn.Conv2d(inputs, outputs, 1), "one layer")
        yield Component("nothing", lambda inputs, outputs, *, deep_supervision: None, "no network")


def kernel() -> Kernel:
    made = Kernel(discover=False)
    made.register(Plugin(), "test")
    return made


def test_from_the_plan(all_variants: Variants) -> None:
    kind, _, arguments = all_variants[0]
    ref = ComponentRef(f"dynamic_network_architectures.architectures.unet.{kind}", arguments)
    network = build_network(kernel().registry, configuration(ref), 2, 3, deep_supervision=False)
    assert network.encoder.stages[0][0].convs[0].conv.in_channels == 2  # type: ignore[union-attr, index, operator]


def test_from_a_plugin() -> None:
    network = build_network(kernel().registry, configuration(ComponentRef("line")), 2, 3, deep_supervision=True)
    assert isinstance(network, nn.Conv2d)
    assert (network.in_channels, network.out_channels) == (2, 3)


def test_what_is_no_network_is_named() -> None:
    with pytest.raises(PluginError, match=r"'nothing' returned NoneType, expected a torch module"):
        build_network(kernel().registry, configuration(ComponentRef("nothing")), 1, 2, deep_supervision=False)


def test_unknown_architecture_is_named() -> None:
    with pytest.raises(PluginError, match=r"'some\.where\.Net'"):
        build_network(kernel().registry, configuration(ComponentRef("some.where.Net")), 1, 2, deep_supervision=False)


def test_arguments_that_do_not_fit_are_named(all_variants: Variants) -> None:
    kind, _, arguments = all_variants[0]
    name = f"dynamic_network_architectures.architectures.unet.{kind}"
    more = ComponentRef(name, {**arguments, "colour": 1})
    with pytest.raises(PluginError, match="colour"):
        build_network(kernel().registry, configuration(more), 1, 2, deep_supervision=False)
    less = ComponentRef(name, {k: v for k, v in arguments.items() if k != "n_stages"})
    with pytest.raises(PluginError, match="n_stages"):
        build_network(kernel().registry, configuration(less), 1, 2, deep_supervision=False)
    evil = ComponentRef(name, {**arguments, "conv_op": "os.system"})
    with pytest.raises(DataError, match=r"os\.system"):
        build_network(kernel().registry, configuration(evil), 1, 2, deep_supervision=False)


def test_a_cascade_has_a_channel_for_each_label_of_the_previous_stage() -> None:
    labels = LabelSet({"background": 0, "a": 1, "b": 2, "ignore": 3})
    assert count_input_channels(configuration(ComponentRef("x")), 2, labels) == 2
    assert count_input_channels(configuration(ComponentRef("x"), previous_stage="3d_lowres"), 2, labels) == 4
