"""For the tests of plugin authors: phantom data that a small network can learn, and what each kind has to do."""

from segplug.testing.conformance import BoundCheck as BoundCheck
from segplug.testing.conformance import conformance as conformance
from segplug.testing.phantom_kinds import KINDS as KINDS
from segplug.testing.phantom_kinds import Kind as Kind
from segplug.testing.phantoms import Phantom as Phantom
from segplug.testing.phantoms import make_case as make_case
from segplug.testing.phantoms import write_phantom_dataset as write_phantom_dataset
