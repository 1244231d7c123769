"""Runs nnunetv2's find-best on model folders; for each .npz writes the properties that nnunetv2 wants beside it. The
validations of fold 0 of all models are averaged too, to `averaged/` in the folder of results.

python peer_find_best.py DATASET PLANS FOLDS CONFIGURATION...
"""

import multiprocessing
import sys
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

if __name__ == "__main__":
    # its pools start a Python for each call: threads do the same work
    multiprocessing.get_context = lambda method=None: SimpleNamespace(Pool=ThreadPool)
    from batchgenerators.utilities.file_and_folder_operations import save_pickle
    from nnunetv2.ensembling.ensemble import ensemble_folders
    from nnunetv2.evaluation.find_best_configuration import find_best_configuration
    from nnunetv2.paths import nnUNet_results
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    dataset, plans, folds, *configurations = sys.argv[1:]
    root = Path(nnUNet_results) / dataset
    models = [{"plans": plans, "configuration": c, "trainer": "nnUNetTrainer"} for c in configurations]
    reader = PlansManager(str(root / f"nnUNetTrainer__{plans}__{configurations[0]}" / "plans.json"))
    reader = reader.image_reader_writer_class()
    for file in root.glob("*/fold_*/validation/*.npz"):
        _, properties = reader.read_seg(str(file.with_suffix(".nii.gz")))
        save_pickle(properties, str(file.with_suffix(".pkl")))
    folders = [str(root / f"nnUNetTrainer__{plans}__{c}" / "fold_0" / "validation") for c in configurations]
    model = root / f"nnUNetTrainer__{plans}__{configurations[0]}"
    described = {
        "dataset_json_file_or_dict": str(model / "dataset.json"),
        "plans_json_file_or_dict": str(model / "plans.json"),
    }
    ensemble_folders(folders, str(root.parent / "averaged"), True, 1, **described)
    find_best_configuration(dataset, models, num_processes=1, folds=[int(f) for f in folds.split(",")])
