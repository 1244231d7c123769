"""The plugin kernel. It knows kinds, names and hooks, and nothing of images."""

from segplug.kernel.component import API_VERSION as API_VERSION
from segplug.kernel.component import Component as Component
from segplug.kernel.component import hookimpl as hookimpl
from segplug.kernel.core import Kernel as Kernel
from segplug.kernel.kinds import KINDS as KINDS
from segplug.kernel.kinds import Kind as Kind
from segplug.kernel.kinds import Style as Style
from segplug.kernel.plugins import PluginRecord as PluginRecord
from segplug.kernel.plugins import Provided as Provided
from segplug.kernel.plugins import State as State
from segplug.kernel.registry import Registry as Registry
