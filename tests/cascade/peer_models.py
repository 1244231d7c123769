"""Run with nnunetv2's Python: python peer_models.py JOB.json, with nnUNet_results and nnUNet_preprocessed set.

`resave`: model folders of segplug that nnunetv2's trainer loads and saves as its own. `predict`: calls of its
predictor; `exact` makes its sums float32, which are float16 otherwise. `next_stage`: cases predicted for
the next stage of a cascade.
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch


class SinglePrecision:
    """torch, with float32 in the place of half."""

    half = torch.float32

    def __getattr__(self, name):
        return getattr(torch, name)


def resave(model, configuration, fold):
    from nnunetv2.paths import nnUNet_preprocessed
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans, dataset = (json.loads((Path(model) / f"{name}.json").read_text()) for name in ("plans", "dataset"))
    configurations = plans["configurations"]
    parent = configurations[configurations[configuration].get("inherits_from", configuration)]
    store = Path(str(nnUNet_preprocessed), plans["dataset_name"], parent["data_identifier"])
    store.mkdir(parents=True, exist_ok=True)
    (store / "any.b2nd").touch()  # by which the trainer tells how cases are stored
    trainer = nnUNetTrainer({**plans, "continue_training": False}, configuration, fold, dataset, torch.device("cpu"))
    trainer.initialize()
    trainer.load_checkpoint(str(Path(model) / f"fold_{fold}" / "checkpoint_final.pth"))
    trainer.current_epoch -= 1  # it saves after counting
    for name in ("mean_fg_dice", "ema_fg_dice"):  # as its own training leaves them there
        values = trainer.logger.local_logger.my_fantastic_logging[name]
        values[:] = [np.float64(value) for value in values]
    trainer._best_ema = np.float64(trainer._best_ema)
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    for name, content in (("plans", plans), ("dataset", dataset)):
        (Path(trainer.output_folder_base) / f"{name}.json").write_text(json.dumps(content))


def next_stage(program, model, image, shape, out, opened):
    """What its validation writes for the next stage; and what it finds in segplug's file of the same case."""
    import blosc2
    from nnunetv2.inference.export_prediction import resample_and_save
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    set_precision(program, True)
    predictor = program.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(model, ("all",))
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case([image], None, plans, configuration, predictor.dataset_json)
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    resample_and_save(
        logits, shape, out, plans, configuration, properties, predictor.dataset_json, 1, nnUNetDatasetBlosc2
    )
    np.save(f"{out}.npy", blosc2.open(urlpath=opened, mode="r", mmap_mode="r", dparams={"nthreads": 1})[:])


def predict(program, exact, model, images, out, folds, mirroring, previous):
    set_precision(program, exact)
    predictor = program.nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(model, tuple(folds))
    Path(out).mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential(images, out, True, True, previous)


def set_precision(program, exact):
    compute_gaussian = program.original
    program.torch = SinglePrecision() if exact else torch
    program.compute_gaussian = partial(compute_gaussian, dtype=torch.float32) if exact else partial(compute_gaussian)
    program.compute_gaussian.cache_clear = compute_gaussian.cache_clear
    compute_gaussian.cache_clear()


def main() -> None:
    from nnunetv2.inference import predict_from_raw_data as program

    program.original = program.compute_gaussian
    job = json.loads(Path(sys.argv[1]).read_text())
    for entry in job["resave"]:
        resave(**entry)
    for entry in job["predict"]:
        predict(program, **entry)
    for entry in job["next_stage"]:
        next_stage(program, **entry)


if __name__ == "__main__":
    main()
