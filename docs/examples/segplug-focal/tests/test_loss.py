import pytest

from segplug import ComponentRef
from segplug.kernel import Kernel
from segplug.testing import BoundCheck, conformance


@pytest.mark.parametrize("check", conformance("losses", "dice_focal"), ids=str)
def test_it_does_what_losses_have_to_do(check: BoundCheck) -> None:
    check()


def test_it_takes_its_options() -> None:
    loss = Kernel().registry.build("losses", ComponentRef("dice_focal", {"gamma": 1.0}))
    assert loss.gamma == 1.0
