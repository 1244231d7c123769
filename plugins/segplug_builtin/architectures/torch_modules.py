"""Names of torch modules in a plan, resolved by a fixed list: a plans file never decides what is imported."""

from __future__ import annotations

from torch import nn

from segplug.errors import DataError

_CLASSES: dict[str, tuple[type[nn.Module], ...]] = {
    "conv_op": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "norm_op": (
        nn.InstanceNorm1d,
        nn.InstanceNorm2d,
        nn.InstanceNorm3d,
        nn.BatchNorm1d,
        nn.BatchNorm2d,
        nn.BatchNorm3d,
        nn.SyncBatchNorm,
    ),
    "dropout_op": (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    "nonlin": (
        nn.ReLU,
        nn.LeakyReLU,
        nn.ReLU6,
        nn.PReLU,
        nn.ELU,
        nn.CELU,
        nn.SELU,
        nn.GELU,
        nn.SiLU,
        nn.Mish,
        nn.Hardswish,
        nn.Softplus,
        nn.Tanh,
        nn.Identity,
    ),
}


def torch_module(argument: str, name: str | None) -> type[nn.Module] | None:
    """The torch.nn class that a plan names for `argument` (`conv_op`, `norm_op`, `dropout_op` or `nonlin`).

    `torch.nn.Conv3d`, its home `torch.nn.modules.conv.Conv3d` and plain `Conv3d` mean the same; None stays None.

    Raises:
        DataError: the name is not among those allowed for this argument.
    """
    if name is None:
        return None
    for found in _CLASSES[argument]:
        if name in (found.__name__, f"torch.nn.{found.__name__}", f"{found.__module__}.{found.__name__}"):
            return found
    allowed = ", ".join(f"torch.nn.{c.__name__}" for c in _CLASSES[argument])
    raise DataError(f"architecture: {argument} is {name!r}, which is not one of: {allowed}")
