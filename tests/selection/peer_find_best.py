"""Runs nnunetv2's find-best on model folders; for each .npz writes the properties that nnunetv2 wants beside it.

python peer_find_best.py DATASET PLANS FOLDS CONFIGURATION...
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    from batchgenerators.utilities.file_and_folder_operations import save_pickle
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
    find_best_configuration(dataset, models, num_processes=1, folds=[int(f) for f in folds.split(",")])
