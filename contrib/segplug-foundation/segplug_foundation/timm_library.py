"""timm, also where the compiled half of torchvision does not load.

timm imports torchvision, for a norm layer and for transforms of images that are not used here. A package index may have
one wheel of torchvision alone, built for CUDA. Beside torch's CPU build its library of compiled operators
(`torchvision/_C.so`, linked with CUDA's) is not loaded. torchvision lets that pass, for its Python half works without,
but ends on two declarations about operators that are not there: "operator torchvision::nms does not exist".

What is done then: the operators are declared, without an implementation, and torchvision is imported again. Its Python
half, real, is what timm gets. Who calls one of the operators is told by torchvision that they are not there, as
`torchvision.extension._has_ops` still says. Where torchvision imports as it is, nothing of this happens.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib import import_module
from typing import Any

from segplug.errors import PluginError

MOST_OPERATORS = 20
"""That are declared before something else must be wrong; torchvision 0.28 needs two."""


@cache
def timm() -> Any:
    """The package `timm`.

    Raises:
        PluginError: it, or torchvision, cannot be imported.
    """
    try:
        import_torchvision()
        return import_module("timm")
    except Exception as error:
        raise PluginError(
            f"timm cannot be imported: {type(error).__name__}: {error}. It needs torchvision in the version that goes "
            "with torch: install both anew from one package index (pip install --force-reinstall torch torchvision)"
        ) from error


def import_torchvision() -> list[str]:
    """Import torchvision; returns the operators that had to be declared for it, usually none.

    Raises:
        Exception: whatever else importing it raises.
    """
    import torch

    declared: list[str] = []
    while True:
        try:
            import_module("torchvision")
        except RuntimeError as error:
            found = re.match(r"operator (torchvision::\w+) does not exist", str(error))
            if found is None or found[1] in declared or len(declared) == MOST_OPERATORS:
                raise
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            torch.library.define(found[1], "() -> ()")
            declared.append(found[1])
        else:
            return declared
