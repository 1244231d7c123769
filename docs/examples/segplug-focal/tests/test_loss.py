import torch
from segplug_focal.loss import DiceFocal

from segplug.kernel import Kernel

TARGET = torch.tensor([[[[0, 1], [2, 1]]]])


def logits_for(target: torch.Tensor, certainty: float) -> torch.Tensor:
    return torch.zeros(1, 3, 2, 2).scatter_(1, target, certainty)


def test_right_is_better_than_wrong() -> None:
    loss = DiceFocal()
    assert loss(logits_for(TARGET, 20.0), TARGET) < 0.01
    assert loss(logits_for((TARGET + 1) % 3, 20.0), TARGET) > 1


def test_it_is_trained_by_its_gradient() -> None:
    logits = torch.zeros(1, 3, 2, 2, requires_grad=True)
    DiceFocal()(logits, TARGET).backward()
    assert (logits.grad.gather(1, TARGET) < 0).all()


def test_segplug_finds_it_and_gives_it_its_options() -> None:
    registry = Kernel().registry
    assert registry.find("losses", "dice_focal").plugin.distribution == "segplug-focal"
    from segplug import ComponentRef

    assert registry.build("losses", ComponentRef("dice_focal", {"gamma": 1.0})).gamma == 1.0
