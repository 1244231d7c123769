"""Splits, moved plans and plans as nnunetv2 reads them; run by the Python of its environment. Reads from standard input

    {"splits": [{"cases": ["a", ...], "folds": [0, ...]}, ...],
     "moves": [{"source": NAME, "target": NAME, "from": PLANS, "to": PLANS or null}, ...],
     "plans": [{...}, ...]}

and writes the same keys with what nnunetv2 makes of each: {"file": [...], "folds": [[train, val], ...]}, the plans that
moved, {configuration: {...}} resolved. Where nnunetv2 fails, {"error": "..."} stands for the result.
"""

import contextlib
import json
import os
import sys
import types


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def split(job, folder):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class Cases:
        def __init__(self, *_, **__):
            self.identifiers = job["cases"]

        @staticmethod
        def get_identifiers(_folder):
            return job["cases"]

    os.makedirs(folder)
    trainer = types.SimpleNamespace(
        dataset_class=Cases,
        preprocessed_dataset_folder=folder,
        preprocessed_dataset_folder_base=folder,
        folder_with_segs_from_previous_stage=None,
        print_to_log_file=lambda *_: None,
    )
    folds = []
    for fold in job["folds"]:
        trainer.fold = fold
        folds.append([list(map(str, part)) for part in nnUNetTrainer.do_split(trainer)])
    with open(os.path.join(folder, "splits_final.json"), encoding="utf-8") as file:
        return {"file": json.load(file), "folds": folds}


def move(job):
    from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import (
        move_plans_between_datasets,
    )
    from nnunetv2.paths import nnUNet_preprocessed

    move_plans_between_datasets(job["source"], job["target"], job["from"], job["to"])
    with open(os.path.join(nnUNet_preprocessed, job["target"], f"{job['to'] or job['from']}.json")) as file:
        return json.load(file)


def resolve(plans):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    return {name: attempt(resolve_one, manager, name) for name in manager.available_configurations}


def resolve_one(manager, name):
    found = manager.get_configuration(name)
    resamplers = {what: getattr(found, f"resampling_fn_{what}") for what in ("data", "seg", "probabilities")}
    return {
        "data_identifier": found.data_identifier,
        "preprocessor": found.preprocessor_name,
        "batch_size": found.batch_size,
        "patch_size": found.patch_size,
        "median_shape": found.median_image_size_in_voxels,
        "spacing": found.spacing,
        "normalization": found.normalization_schemes,
        "use_mask_for_norm": found.use_mask_for_norm,
        "resamplers": {what: [each.func.__name__, each.keywords] for what, each in resamplers.items()},
        "network": found.network_arch_class_name,
        "network_arguments": found.network_arch_init_kwargs,
        "imported": found.network_arch_init_kwargs_req_import,
        "batch_dice": found.batch_dice,
        "previous_stage": found.previous_stage_name,
        "next_stage": found.next_stage_names or [],
        "weights": weights(found),
        "intensities": manager.foreground_intensity_properties_per_channel,
        "reader": manager.image_reader_writer_class.__name__,
        "transpose": [manager.transpose_forward, manager.transpose_backward],
    }


def weights(configuration):
    """Name and shape of everything in the network, for one channel and three classes.

    Converted old plans name a module that is no more; nnunetv2 then takes the first class of that name that a search
    through dynamic_network_architectures finds, which fails where torchvision does not fit. Here it is found at once.
    """
    import pydoc

    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    name = configuration.network_arch_class_name
    if pydoc.locate(name) is None:
        name = f"dynamic_network_architectures.architectures.unet.{name.rpartition('.')[-1]}"
    with torch.device("meta"):
        network = get_network_from_plans(
            name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            1,
            3,
            allow_init=False,
            deep_supervision=True,
        )
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def main():
    job = json.load(sys.stdin)
    splits = f"{sys.argv[1]}.splits"
    with contextlib.redirect_stdout(sys.stderr):
        answer = {
            "splits": [attempt(split, each, os.path.join(splits, str(n))) for n, each in enumerate(job["splits"])],
            "moves": [attempt(move, each) for each in job["moves"]],
            "plans": [attempt(resolve, each) for each in job["plans"]],
        }
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
