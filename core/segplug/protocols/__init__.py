"""What a component of each kind looks like: one `typing.Protocol` per kind, and the values that pass through it.

No plugin subclasses anything here; a function or object of the right shape is enough. Nothing here imports torch.
"""

from segplug.protocols.architecture import Architecture as Architecture
from segplug.protocols.augmentation import Augmentation as Augmentation
from segplug.protocols.augmentation import AugmentationContext as AugmentationContext
from segplug.protocols.augmentation import Batch as Batch
from segplug.protocols.augmentation import Parameters as Parameters
from segplug.protocols.converter import Converter as Converter
from segplug.protocols.converter import recognised_by as recognised_by
from segplug.protocols.converter import recognises as recognises
from segplug.protocols.executor import Executor as Executor
from segplug.protocols.executor import Outcome as Outcome
from segplug.protocols.executor import StartsEarly as StartsEarly
from segplug.protocols.loss import Loss as Loss
from segplug.protocols.loss import SampleWiseLoss as SampleWiseLoss
from segplug.protocols.metric import Comparison as Comparison
from segplug.protocols.metric import Metric as Metric
from segplug.protocols.normalizer import Normalizer as Normalizer
from segplug.protocols.normalizer import RegionNormalizer as RegionNormalizer
from segplug.protocols.optimizer import OptimizerFactory as OptimizerFactory
from segplug.protocols.planner import Planner as Planner
from segplug.protocols.postprocessor import Decision as Decision
from segplug.protocols.postprocessor import Postprocessor as Postprocessor
from segplug.protocols.predictor import Model as Model
from segplug.protocols.predictor import Pipeline as Pipeline
from segplug.protocols.predictor import PredictionSettings as PredictionSettings
from segplug.protocols.predictor import Predictor as Predictor
from segplug.protocols.reader import ImageSize as ImageSize
from segplug.protocols.reader import OpenImage as OpenImage
from segplug.protocols.reader import Reader as Reader
from segplug.protocols.reader import RegionReader as RegionReader
from segplug.protocols.reader import SizedReader as SizedReader
from segplug.protocols.resampler import Resampler as Resampler
from segplug.protocols.resampler import SeparableResampler as SeparableResampler
from segplug.protocols.resampler import SizedResampler as SizedResampler
from segplug.protocols.schedule import Schedule as Schedule
from segplug.protocols.splitter import Splitter as Splitter
from segplug.protocols.store import PreprocessedCase as PreprocessedCase
from segplug.protocols.store import Store as Store
from segplug.protocols.store import StoredCase as StoredCase
from segplug.protocols.store import StoreFactory as StoreFactory
from segplug.protocols.trainer import BatchRequest as BatchRequest
from segplug.protocols.trainer import Trainer as Trainer
from segplug.protocols.trainer import TrainingTask as TrainingTask
from segplug.protocols.writer import Writer as Writer
