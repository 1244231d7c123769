"""The one table of component kinds. Validation, listings, docs and conformance checks are driven by it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Style(Enum):
    """How a component of a kind is used."""

    FUNCTION = "function"
    """The factory is the component: it is called with the kind's arguments, options as further keywords."""
    OBJECT = "object"
    """The factory is called with the options (and what it asks for by name) and returns the component."""


@dataclass(frozen=True)
class Kind:
    """A kind of component: its plural name, the protocol that it implements and how it is used."""

    name: str
    protocol: str
    style: Style
    summary: str

    @property
    def hook(self) -> str:
        """Name of the provider hook."""
        return f"segplug_{self.name}"


def _kind(name: str, protocol: str, style: Style, summary: str) -> tuple[str, Kind]:
    return name, Kind(name, f"segplug.protocols.{protocol}", style, summary)


_F, _O = Style.FUNCTION, Style.OBJECT

KINDS: dict[str, Kind] = dict(
    (
        _kind("readers", "reader:Reader", _F, "files of one case -> Image"),
        _kind("writers", "writer:Writer", _F, "Labels -> a file"),
        _kind("normalizers", "normalizer:Normalizer", _F, "one channel -> normalised channel"),
        _kind("resamplers", "resampler:Resampler", _F, "array, shape and spacings -> resampled array"),
        _kind("planners", "planner:Planner", _F, "fingerprint, labels and budget -> Plan"),
        _kind("architectures", "architecture:Architecture", _F, "its part of the plan -> network"),
        _kind("losses", "loss:Loss", _O, "logits and target -> scalar"),
        _kind("augmentations", "augmentation:Augmentation", _O, "batch and drawn parameters -> batch"),
        _kind("optimizers", "optimizer:OptimizerFactory", _F, "parameters and learning rate -> optimiser"),
        _kind("schedules", "schedule:Schedule", _F, "place in the training -> learning rate"),
        _kind("splitters", "splitter:Splitter", _F, "case names -> training and validation cases"),
        _kind("trainers", "trainer:Trainer", _O, "the training loop and its settings"),
        _kind("postprocessors", "postprocessor:Postprocessor", _O, "fit and apply a clean-up of predictions"),
        _kind("metrics", "metric:Metric", _F, "reference and predicted mask -> number"),
        _kind("predictors", "predictor:Predictor", _O, "inference engine: Image -> Prediction"),
        _kind("stores", "store:StoreFactory", _F, "where preprocessed cases are kept"),
        _kind("executors", "executor:Executor", _O, "runs a function over cases"),
        _kind("converters", "converter:Converter", _F, "foreign data set -> nnU-Net raw data set"),
    )
)
