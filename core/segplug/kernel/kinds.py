"""The one table of component kinds. Provider hooks, validation, listings, docs and conformance checks come from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from importlib import import_module


class Style(Enum):
    """How a component of a kind is used."""

    FUNCTION = "function"
    """The factory is the component: it is called with the kind's arguments, options as further keywords."""
    OBJECT = "object"
    """The factory is called with the options (and what it asks for by name) and returns the component."""


@dataclass(frozen=True)
class Kind:
    """A kind of component: its plural name, the protocol in `segplug.protocols` that it has to satisfy, its style."""

    name: str
    protocol: str
    style: Style
    summary: str

    @property
    def hook(self) -> str:
        """Name of the provider hook."""
        return f"segplug_{self.name}"

    def load_protocol(self) -> type:
        """The protocol's class. Importing it imports NumPy, never torch."""
        found: type = getattr(import_module("segplug.protocols"), self.protocol)
        return found


_F, _O = Style.FUNCTION, Style.OBJECT

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("readers", "Reader", _F, "from the files of one case to an Image"),
        Kind("writers", "Writer", _F, "put Labels into a file that other programs read"),
        Kind("normalizers", "Normalizer", _F, "normalise one channel, given a mask and the channel's statistics"),
        Kind("resamplers", "Resampler", _F, "bring an array to the shape wanted, given both spacings"),
        Kind("planners", "Planner", _F, "from fingerprint, data set description and budget to a Plan"),
        Kind("architectures", "Architecture", _F, "from channel counts and their part of the plan to a network"),
        Kind("losses", "Loss", _O, "from logits and target to a scalar; deep supervision is added around them"),
        Kind("augmentations", "Augmentation", _O, "draw parameters per sample, then change whole batches by them"),
        Kind("optimizers", "OptimizerFactory", _F, "from parameters and learning rate to a torch optimiser"),
        Kind("schedules", "Schedule", _F, "from the place in the training to the learning rate"),
        Kind("splitters", "Splitter", _F, "from case names to folds"),
        Kind("trainers", "Trainer", _O, "the training loop; its settings are the fields of a frozen dataclass"),
        Kind("postprocessors", "Postprocessor", _O, "decide on a clean-up by validation predictions, and apply it"),
        Kind("metrics", "Metric", _F, "compare one class of a prediction with the reference"),
        Kind("predictors", "Predictor", _O, "inference engines: from an Image to a Prediction"),
        Kind("stores", "StoreFactory", _F, "where and how preprocessed cases are kept"),
        Kind("executors", "Executor", _O, "run a function over many cases, here or elsewhere"),
        Kind("converters", "Converter", _F, "make a raw data set of nnU-Net's layout from something else"),
    )
}
