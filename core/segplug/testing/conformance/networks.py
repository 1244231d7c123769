"""Architectures and losses."""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from segplug.errors import DataError, PluginError, SegplugError
from segplug.model import ComponentRef
from segplug.protocols.loss import SampleWiseLoss
from segplug.runtime.network import offered_patch
from segplug.testing.conformance.suite import Subject, check, expect, skip

if TYPE_CHECKING:
    from torch import Tensor, nn

CLASSES = 3


def _network(subject: Subject, channels: int = 2, *, deep_supervision: bool = False, seed: int = 0) -> nn.Module:
    import torch

    torch.manual_seed(seed)
    build = subject.build()
    patch = offered_patch(build, subject.ref, subject.patch_size)
    try:
        network: Any = build(channels, CLASSES, deep_supervision=deep_supervision, **patch)
    except (TypeError, DataError) as error:
        if subject.ref.options or not _needs_options(build, error):
            raise
        options = _usual_options(subject)
        if options is None:
            skip(f"it needs options to be checked with: {error}")
        build = subject.kernel.registry.build("architectures", ComponentRef(subject.ref.name, options))
        try:
            network = build(channels, CLASSES, deep_supervision=deep_supervision)
        except TypeError as refused:
            if "unexpected keyword" in str(refused):  # it takes any, and hands them on to what takes others
                skip(f"it needs options to be checked with: {error}")
            raise
    expect(isinstance(network, torch.nn.Module), f"it made a {type(network).__name__}; expected a torch.nn.Module")
    return network  # type: ignore[no-any-return]


def _needs_options(build: Any, error: Exception) -> bool:
    """Whether an architecture cannot be made for want of options, and not for a fault of its own."""
    if isinstance(error, DataError):  # it says itself what it needs
        return True
    if not re.search(r"missing \d+ required", str(error)):
        return False
    given = {"deep_supervision", "patch_size"}
    parameters = list(inspect.signature(build).parameters.values())[2:]  # behind the channels
    asked = [each for each in parameters if each.default is each.empty and each.name not in given]
    return any(each.kind is not each.VAR_POSITIONAL for each in asked)


def _usual_options(subject: Subject) -> dict[str, Any] | None:
    """Arguments as nnU-Net's plans have them, for networks that take these."""
    axes = len(subject.patch_size)
    stages = 3
    usual = {
        "n_stages": stages,
        "features_per_stage": [4, 8, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": [[3] * axes] * stages,
        "strides": [[1] * axes, [2] * axes, [2] * axes],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    for blocks in ("n_conv_per_stage", "n_blocks_per_stage"):
        try:
            options = {**usual, blocks: [1] * stages}
            subject.kernel.registry.check("architectures", ComponentRef(subject.ref.name, options))
        except PluginError:
            continue
        return options
    return None


def _patch(subject: Subject, samples: int = 2, channels: int = 2) -> Tensor:
    import torch

    return torch.randn(samples, channels, *subject.patch_size, generator=torch.Generator().manual_seed(1))


@check("architectures", "it maps (batch, channels, *patch) to finite float32 logits (batch, classes, *patch)")
def _maps(subject: Subject) -> None:
    import torch

    for channels in (1, 2):
        network = _network(subject, channels).train(False)
        with torch.inference_mode():
            found = network(_patch(subject, 2, channels))
        expect(isinstance(found, torch.Tensor), f"it returns a {type(found).__name__} without deep supervision")
        wanted = (2, CLASSES, *subject.patch_size)
        expect(tuple(found.shape) == wanted, f"logits of shape {tuple(found.shape)}; expected {wanted}")
        expect(found.dtype == torch.float32 and bool(found.isfinite().all()), f"{found.dtype}, or not finite")


@check(
    "architectures", "with deep supervision its logits go from full to lowest resolution; else it returns one tensor"
)
def _supervises(subject: Subject) -> None:
    network = _network(subject, deep_supervision=True).train()
    found = network(_patch(subject))
    outputs = list(found) if isinstance(found, (list, tuple)) else [found]
    shapes = [tuple(each.shape) for each in outputs]
    expect(shapes[0] == (2, CLASSES, *subject.patch_size), f"the first logits have shape {shapes[0]}")
    sizes = [each[2:].numel() for each in (output.shape for output in outputs)]
    expect(sizes == sorted(sizes, reverse=True), f"the outputs' shapes are not from full to lowest: {shapes}")
    expect(all(shape[:2] == (2, CLASSES) for shape in shapes), f"batch and classes change along the outputs: {shapes}")
    if hasattr(network, "deep_supervision"):
        network.deep_supervision = False  # type: ignore[assignment]
        import torch

        expect(
            isinstance(network.train(False)(_patch(subject)), torch.Tensor), "deep_supervision = False changes nothing"
        )


@check("architectures", "every weight that can be trained gets a finite gradient")
def _is_trained(subject: Subject) -> None:
    network = _network(subject, deep_supervision=True).train()
    found = network(_patch(subject))
    outputs = found if isinstance(found, (list, tuple)) else [found]
    sum(output.square().mean() for output in outputs).backward()
    untrained = [name for name, each in network.named_parameters() if each.requires_grad and each.grad is None]
    expect(not untrained, f"no gradient reaches {', '.join(untrained[:5])}; freeze what is not to be trained")
    wrong = [
        name for name, each in network.named_parameters() if each.grad is not None and not each.grad.isfinite().all()
    ]
    expect(not wrong, f"the gradient of {', '.join(wrong[:5])} is not finite")


@check("architectures", "the same seed gives the same weights, and saved weights the same logits")
def _repeats(subject: Subject) -> None:
    import torch

    first, second, other = (_network(subject, seed=seed).train(False) for seed in (0, 0, 1))
    patch = _patch(subject)
    with torch.inference_mode():
        wanted = first(patch)
        expect(
            torch.equal(wanted, second(patch)), "two networks of one seed differ: use torch's global generator alone"
        )
        other.load_state_dict(first.state_dict(), strict=True)
        difference = float((other(patch) - wanted).abs().max())
    expect(difference < 1e-5, f"after loading the weights of another, logits differ by up to {difference:.2g}")


@check("architectures", "in evaluation mode a sample's logits do not depend on its neighbours in the batch")
def _separates(subject: Subject) -> None:
    import torch

    network, patch = _network(subject).train(False), _patch(subject)
    with torch.inference_mode():
        difference = float((network(patch)[:1] - network(patch[:1])).abs().max())
    expect(difference < 1e-3, f"alone, a sample's logits differ by up to {difference:.2g}")


def _loss(subject: Subject, **offered: Any) -> Any:
    """The loss, to be called as the framework does without an ignore label."""
    loss = subject.build(**{"batch_dice": False, "regions": False, "classes": CLASSES, **offered})
    call = type(loss).forward if hasattr(loss, "forward") else loss
    return partial(loss, mask=None) if "mask" in inspect.signature(call).parameters else loss


def _target(axes: int, samples: int = 2) -> Tensor:
    import torch

    target = torch.zeros(samples, 1, *[8] * axes, dtype=torch.int64)
    target[:, :, 1:4, 2:6], target[:, :, 4:, 5:] = 1, 2
    return target


def _logits(target: Tensor, certainty: float) -> Tensor:
    import torch

    return torch.zeros(len(target), CLASSES, *target.shape[2:]).scatter_(1, target, certainty)


@check(
    "losses", "it is one finite number in two and three dimensions, with and without batch Dice, and always the same"
)
def _is_number(subject: Subject) -> None:
    for axes in (2, 3):
        for batch_dice in (False, True):
            loss, target = _loss(subject, batch_dice=batch_dice), _target(axes)
            value, again = (loss(_logits(target, 1.0), target.clone()) for _ in range(2))
            expect(value.ndim == 0, f"{axes}D: shape {tuple(value.shape)}; expected a scalar")
            expect(bool(value.isfinite()), f"{axes}D: {float(value)}")
            expect(float(value) == float(again), f"{axes}D: {float(value)}, then {float(again)} from the same")


@check("losses", "right logits cost less than undecided ones, and these less than wrong ones")
def _orders(subject: Subject) -> None:
    loss, target = _loss(subject), _target(2)
    right, open_, wrong = (
        float(loss(logits, target.clone()))
        for logits in (_logits(target, 12.0), _logits(target, 0.0), _logits((target + 1) % CLASSES, 12.0))
    )
    expect(right < open_ < wrong, f"right {right:.4f}, undecided {open_:.4f}, wrong {wrong:.4f}")


@check("losses", "its gradient is finite and makes wrong logits better, also where the target is background alone")
def _improves(subject: Subject) -> None:
    import torch

    for target in (_target(2), torch.zeros_like(_target(2))):
        loss = _loss(subject)
        uneven = torch.randn(2, CLASSES, 8, 8, generator=torch.Generator().manual_seed(0))
        logits = (_logits((target + 1) % CLASSES, 2.0) + uneven).requires_grad_()
        value = loss(logits, target.clone())
        value.backward()
        gradient = torch.zeros_like(logits) if logits.grad is None else logits.grad
        expect(bool(gradient.isfinite().all()), "NaN or infinity reaches the logits")
        size = float(gradient.abs().max())
        if size == 0:
            expect(not target.any(), "no gradient reaches the logits although they are wrong")
            continue
        step = 0.01 / size
        with torch.no_grad():
            better = loss(logits - step * gradient, target.clone())
        # a loss near 1 can fall by less than float32 can tell
        told = step * float(gradient.square().sum()) > 1e-6 * abs(value.item())
        fell = bool(better < value) if told else bool(better <= value)
        expect(fell, f"a step against the gradient: from {value.item():.6f} to {better.item():.6f}")


@check("losses", "extreme logits do not overflow, and neither logits nor target are changed")
def _survives(subject: Subject) -> None:
    target = _target(2)
    for certainty in (-300.0, 300.0):
        logits = _logits(target, certainty)
        copies = logits.clone(), target.clone()
        value = _loss(subject)(logits, target)
        expect(bool(value.isfinite()), f"{float(value)} for logits of {certainty}")
        expect(bool((logits == copies[0]).all() and (target == copies[1]).all()), "its arguments were changed in place")


@check("losses", "with regions it takes a mask per class, or says clearly that it does not")
def _takes_regions(subject: Subject) -> None:
    import torch

    target = torch.zeros(2, CLASSES, 8, 8)
    target[:, 0, 1:7], target[:, 1, 2:5] = 1, 1
    _loss(subject)  # what cannot be made at all does not refuse regions
    try:
        loss = _loss(subject, regions=True)
        values = [loss(certainty * (2 * target - 1), target.clone()) for certainty in (8.0, -8.0)]
    except (SegplugError, ValueError):
        return
    expect(bool(values[0] < values[1]), f"right {float(values[0]):.4f}, wrong {float(values[1]):.4f}")


@check("losses", "if it can be told from numbers of each sample, that gives what its call gives")
def _splits_samples(subject: Subject) -> None:
    import torch

    called, target = _loss(subject, batch_dice=True), _target(2, 3)
    loss = getattr(called, "func", called)
    if not isinstance(loss, SampleWiseLoss):
        skip("it is no SampleWiseLoss: on several processes it is given the logits of the whole batch")
    logits = _logits(target, 1.0) + torch.randn(3, CLASSES, 8, 8, generator=torch.Generator().manual_seed(0))
    parts = [loss.of_samples(logits[i : i + 1], target[i : i + 1]) for i in range(3)]
    joined = loss.of_batch(*(torch.cat(each) for each in zip(*parts, strict=True)))
    whole = called(logits, target)
    expect(
        bool(torch.isclose(joined, whole, atol=1e-5)), f"{float(joined):.6f} by samples, {float(whole):.6f} by the call"
    )
