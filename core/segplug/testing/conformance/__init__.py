"""Conformance suites: what every component of a kind has to do, one file per family of kinds."""

from segplug.testing.conformance import after_training as after_training
from segplug.testing.conformance import files as files
from segplug.testing.conformance import images as images
from segplug.testing.conformance import networks as networks
from segplug.testing.conformance import planning as planning
from segplug.testing.conformance import training as training
from segplug.testing.conformance import work as work
from segplug.testing.conformance.suite import CHECKS as CHECKS
from segplug.testing.conformance.suite import BoundCheck as BoundCheck
from segplug.testing.conformance.suite import Finding as Finding
from segplug.testing.conformance.suite import State as State
from segplug.testing.conformance.suite import conformance as conformance
