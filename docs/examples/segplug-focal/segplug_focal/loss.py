import torch
from torch import Tensor, nn


class DiceFocal(nn.Module):
    """Soft Dice of the foreground classes plus focal loss (Lin et al. 2017)."""

    def __init__(self, gamma: float = 2.0, smooth: float = 1e-5) -> None:
        super().__init__()
        self.gamma, self.smooth = gamma, smooth

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (batch, classes, *spatial) and labels (batch, 1, *spatial) to a scalar."""
        log_probability = logits.log_softmax(dim=1)
        right = log_probability.gather(1, target)
        focal = -((1 - right.exp()) ** self.gamma * right).mean()

        probability = log_probability.exp()[:, 1:]
        truth = torch.zeros_like(logits).scatter_(1, target, 1)[:, 1:]
        axes = tuple(range(2, logits.ndim))
        overlap = 2 * (probability * truth).sum(axes) + self.smooth
        dice = overlap / (probability.sum(axes) + truth.sum(axes) + self.smooth)
        return 1 - dice.mean() + focal
