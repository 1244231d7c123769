"""For scripts that are run with nnunetv2's Python: timm, which Primus needs there, without torchvision.

timm imports it, Primus uses nothing of it, and it need not fit the torch at hand.
"""

import importlib.machinery
import sys
import types


class Anything(type):
    """Of classes that have every attribute."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class NoTorchvision:
    """Stands in for torchvision, which timm imports and Primus does not use: it need not fit the torch at hand."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return types.ModuleType(spec.name)

    def exec_module(self, module):
        def __getattr__(name):  # noqa: N807
            if name.startswith("__"):
                raise AttributeError(name)
            return Anything(name, (), {})

        module.__getattr__ = __getattr__


def use_no_torchvision():
    sys.meta_path.insert(0, NoTorchvision())
