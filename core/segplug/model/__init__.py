"""Frozen dataclasses that flow through the house. Light: NumPy is the heaviest import."""

from segplug.model.component_ref import ComponentRef as ComponentRef
from segplug.model.conversion import Conversion as Conversion
from segplug.model.conversion import ConvertedFile as ConvertedFile
from segplug.model.dataset import Case as Case
from segplug.model.dataset import DatasetDescription as DatasetDescription
from segplug.model.dataset import RawDataset as RawDataset
from segplug.model.evaluation import CaseEvaluation as CaseEvaluation
from segplug.model.evaluation import Choice as Choice
from segplug.model.evaluation import Evaluation as Evaluation
from segplug.model.fingerprint import ChannelStatistics as ChannelStatistics
from segplug.model.fingerprint import Fingerprint as Fingerprint
from segplug.model.image import Geometry as Geometry
from segplug.model.image import Image as Image
from segplug.model.image import Labels as Labels
from segplug.model.label_set import LabelSet as LabelSet
from segplug.model.plan import Budget as Budget
from segplug.model.plan import Configuration as Configuration
from segplug.model.plan import Plan as Plan
from segplug.model.prediction import Prediction as Prediction
from segplug.model.training import EpochReport as EpochReport
from segplug.model.training import Split as Split
from segplug.model.training import TrainedFold as TrainedFold
from segplug.model.training import TrainingStart as TrainingStart
