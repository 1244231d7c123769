import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid


class DiceFocal(nn.Module):
    """Soft Dice of the foreground classes plus focal loss (Lin et al. 2017)."""

    def __init__(self, gamma: float = 2.0, smooth: float = 1e-5, regions: bool = False) -> None:
        super().__init__()
        self.gamma, self.smooth, self.regions = gamma, smooth, regions

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (batch, classes, *spatial), and labels (batch, 1, *spatial) or a mask per region, to a scalar."""
        if self.regions:
            right = logsigmoid(logits * (2 * target - 1))
            probability, truth = logits.sigmoid(), target
        else:
            right = logits.log_softmax(dim=1).gather(1, target)
            probability = logits.softmax(dim=1)[:, 1:]
            truth = torch.zeros_like(logits).scatter_(1, target, 1)[:, 1:]
        focal = -((1 - right.exp()) ** self.gamma * right).mean()
        axes = tuple(range(2, logits.ndim))
        overlap = 2 * (probability * truth).sum(axes) + self.smooth
        dice = overlap / (probability.sum(axes) + truth.sum(axes) + self.smooth)
        return 1 - dice.mean() + focal
