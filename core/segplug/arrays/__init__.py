"""Everything on arrays in memory: no folder, no file but those of a model.

`image` and `labels` give an array its place; all else takes and returns the values of `segplug.model`. Where components
are needed (normalizers, planners, ...), those of `project` are taken; without one, all that are installed.

A predicted label map, or probabilities, may be mapped from a file on disk and be larger than memory: what works on them
region by region calls `release(array)` now and then, which gives back the memory of what it has read.

Importing it does not import torch; loading a model does.
"""

from segplug.arrays.images import describe as describe
from segplug.arrays.images import image as image
from segplug.arrays.images import label_set as label_set
from segplug.arrays.images import labels as labels
from segplug.arrays.judging import Selection as Selection
from segplug.arrays.judging import apply_postprocessing as apply_postprocessing
from segplug.arrays.judging import ensemble as ensemble
from segplug.arrays.judging import evaluate as evaluate
from segplug.arrays.judging import evaluate_pair as evaluate_pair
from segplug.arrays.judging import fit_postprocessing as fit_postprocessing
from segplug.arrays.judging import select as select
from segplug.arrays.mapped import release as release
from segplug.arrays.planning import Preprocessed as Preprocessed
from segplug.arrays.planning import fingerprint as fingerprint
from segplug.arrays.planning import plan as plan
from segplug.arrays.planning import preprocess as preprocess
from segplug.arrays.prediction import LoadedModel as LoadedModel
from segplug.arrays.prediction import load_model as load_model
from segplug.arrays.writing import write_dataset as write_dataset
