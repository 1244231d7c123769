"""What the builders add to MONAI's networks: deep supervision as segplug has it, and words for what cannot be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from monai.networks.nets import DynUNet
from segplug_monai.networks import build_dynunet, build_segresnet, build_swinunetr, build_unetr

from segplug.errors import DataError

ARGUMENTS: dict[str, Any] = {
    "kernel_size": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]],
    "filters": [4, 8, 16, 16],
}


def test_lower_resolutions_come_as_they_are() -> None:
    network = build_dynunet(2, 3, deep_supervision=True, **ARGUMENTS).train()
    found = network(torch.randn(1, 2, 8, 32, 16))
    assert [tuple(each.shape[2:]) for each in found] == [(8, 32, 16), (8, 16, 8), (4, 8, 4)]
    network.eval()
    assert isinstance(network(torch.randn(1, 2, 8, 32, 16)), torch.Tensor)


def test_logits_are_those_of_monai_s_own() -> None:
    ours = build_dynunet(1, 2, deep_supervision=True, **ARGUMENTS).train()
    theirs = DynUNet(
        3,
        1,
        2,
        ARGUMENTS["kernel_size"],
        ARGUMENTS["strides"],
        ARGUMENTS["strides"][1:],
        ARGUMENTS["filters"],
        deep_supervision=True,
        deep_supr_num=2,
    ).train()
    theirs.load_state_dict(ours.state_dict())
    patch = torch.randn(2, 1, 8, 16, 16)
    stacked, listed = theirs(patch), ours(patch)
    torch.testing.assert_close(stacked[:, 0], listed[0])
    for index in (1, 2):
        enlarged = torch.nn.functional.interpolate(listed[index], patch.shape[2:])
        torch.testing.assert_close(stacked[:, index], enlarged)


def test_weights_do_not_depend_on_deep_supervision() -> None:
    """A trained network is built without it for prediction."""
    trained = build_dynunet(1, 2, deep_supervision=True, **ARGUMENTS).train()
    predicting = build_dynunet(1, 2, deep_supervision=False, **ARGUMENTS)
    predicting.load_state_dict(trained.state_dict(), strict=True)
    assert isinstance(predicting.train()(torch.randn(1, 1, 8, 16, 16)), torch.Tensor)


def test_a_step_leaves_nothing_behind_and_the_network_can_be_copied() -> None:
    network = build_dynunet(1, 2, deep_supervision=True, **ARGUMENTS).train()
    sum(each.mean() for each in network(torch.randn(1, 1, 8, 16, 16))).backward()
    copied = copy.deepcopy(network).eval()
    patch = torch.randn(1, 1, 8, 16, 16)
    assert torch.equal(copied(patch), network.eval()(patch))


@pytest.mark.parametrize(
    ("build", "patch", "told"),
    [
        (build_swinunetr, (40, 56, 40), r"\[40, 56, 40\]; expected multiples of \[32, 32, 32\], 2 of these boxes"),
        (build_swinunetr, (40, 56, 40), r"--planner monai_swinunetr, or set trainer.patch_size=\[32, 64, 32\]"),
        (build_swinunetr, (32, 32), r"set trainer.patch_size=\[(64, 32|32, 64)\]"),
        (build_unetr, (40, 56, 40), r"multiples of \[16, 16, 16\].*patch_size=\[32, 64, 32\]"),
        (build_segresnet, (20, 30), r"multiples of \[8, 8\].*--planner monai_segresnet.*patch_size=\[16, 32\]"),
    ],
)
def test_another_patch_is_refused_with_one_that_would_do(build: Any, patch: tuple[int, ...], told: str) -> None:
    with pytest.raises(DataError, match=told):
        build(1, 2, deep_supervision=False, patch_size=patch)


@pytest.mark.parametrize(
    ("build", "options", "told"),
    [
        (build_swinunetr, {"feature_size": 20}, "feature_size 20; expected a multiple of 12"),
        (build_swinunetr, {"drop_rate": 2.0}, "architecture monai_swinunetr: dropout rate should be between 0 and 1"),
        (build_unetr, {"hidden_size": 100}, "hidden_size 100; expected a multiple of 12"),
        (build_segresnet, {"init_filters": 12}, "init_filters 12; expected a multiple of 8"),
        (build_segresnet, {"blocks_up": [1]}, "4 blocks_down and 1 blocks_up; expected one less"),
    ],
)
def test_other_arguments_that_cannot_be_are_refused(build: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        build(1, 2, deep_supervision=False, patch_size=(64, 64, 64), **options)


def test_dynunet_says_what_it_needs() -> None:
    with pytest.raises(DataError, match="2 strides, 4 kernel sizes and 4 filters; expected as many of each, three or"):
        build_dynunet(1, 2, deep_supervision=True, **{**ARGUMENTS, "strides": ARGUMENTS["strides"][:2]})
    with pytest.raises(DataError, match=r"\[8, 30, 16\]; expected multiples of \[4, 8, 8\]"):
        build_dynunet(1, 2, deep_supervision=True, patch_size=(8, 30, 16), **ARGUMENTS)
