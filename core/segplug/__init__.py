"""segplug: nnU-Net's self-configuring segmentation as a plugin framework.

Importing the package is cheap: names are loaded on first use, and none of them pulls in torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segplug.errors import SegplugError as SegplugError
    from segplug.kernel import Component as Component
    from segplug.kernel import hookimpl as hookimpl
    from segplug.model import ComponentRef as ComponentRef
    from segplug.runtime.project import Project as Project
    from segplug.runtime.project import open_project as open_project

__version__ = "0.1.0"

_HOME = {
    "Component": "segplug.kernel",
    "ComponentRef": "segplug.model",
    "Project": "segplug.runtime.project",
    "SegplugError": "segplug.errors",
    "hookimpl": "segplug.kernel",
    "open_project": "segplug.runtime.project",
}

__all__ = ["Component", "ComponentRef", "Project", "SegplugError", "__version__", "hookimpl", "open_project"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'segplug' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
