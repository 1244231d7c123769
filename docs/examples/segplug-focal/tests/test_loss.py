import pytest
import torch
from segplug_focal.loss import DiceFocal

from segplug.testing import BoundCheck, conformance


@pytest.mark.parametrize("check", conformance("losses", "dice_focal"), ids=str)
def test_it_does_what_losses_have_to_do(check: BoundCheck) -> None:
    check()


def test_right_voxels_count_less_with_a_greater_gamma() -> None:
    logits, target = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]), torch.ones(1, 1, 2, dtype=torch.int64)
    plain, focal = (DiceFocal(gamma=gamma)(logits, target) for gamma in (0.0, 2.0))
    assert focal < plain
