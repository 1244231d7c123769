"""Predicts with every member, ensembles and postprocesses, all with nnunetv2; its sums are made float32.

    python peer_predict_choice.py IMAGES OUT LABEL MODEL_FOLDER...

LABEL: whose largest component is kept. OUT gets member_0, member_1, ..., ensemble and result.
"""

import multiprocessing
import sys
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace


def main() -> None:
    import torch
    from nnunetv2.ensembling.ensemble import ensemble_folders
    from nnunetv2.inference import predict_from_raw_data as program
    from nnunetv2.postprocessing.remove_connected_components import (
        apply_postprocessing_to_folder,
        remove_all_but_largest_component_from_segmentation,
    )

    # its pools start a Python for each call: threads do the same work
    multiprocessing.get_context = lambda method=None: SimpleNamespace(Pool=ThreadPool)

    class SinglePrecision:
        half = torch.float32

        def __getattr__(self, name):
            return getattr(torch, name)

    program.torch = SinglePrecision()
    compute_gaussian = program.compute_gaussian
    program.compute_gaussian = partial(compute_gaussian, dtype=torch.float32)
    program.compute_gaussian.cache_clear = compute_gaussian.cache_clear
    images, out, label, *models = sys.argv[1:]
    members = [f"{out}/member_{number}" for number, _ in enumerate(models)]
    for model, member in zip(models, members, strict=True):
        Path(member).mkdir(parents=True)
        predictor = program.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(model, (0,))
        predictor.predict_from_files_sequential(images, member, save_probabilities=True)
    ensemble_folders(members, f"{out}/ensemble", num_processes=1)
    apply_postprocessing_to_folder(
        f"{out}/ensemble",
        f"{out}/result",
        [remove_all_but_largest_component_from_segmentation],
        [{"labels_or_regions": int(label)}],
        plans_file_or_dict=f"{models[0]}/plans.json",
        dataset_json_file_or_dict=f"{models[0]}/dataset.json",
        num_processes=1,
    )


if __name__ == "__main__":
    main()
