"""Run with nnunetv2's Python: python peer_predict.py MODEL_FOLDER IMAGES OUT FOLD...

Its sums are made float32 here, for in half precision the labels of networks with random weights, whose classes are all
but tied, depend on rounding.
"""

import sys
from functools import partial

import torch


class SinglePrecision:
    """torch, with float32 in the place of half."""

    half = torch.float32

    def __getattr__(self, name):
        return getattr(torch, name)


def main() -> None:
    from nnunetv2.inference import predict_from_raw_data as program

    program.torch = SinglePrecision()
    compute_gaussian = program.compute_gaussian
    program.compute_gaussian = partial(compute_gaussian, dtype=torch.float32)
    program.compute_gaussian.cache_clear = compute_gaussian.cache_clear
    model, images, out, *folds = sys.argv[1:]
    predictor = program.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(model, tuple(int(f) for f in folds))
    predictor.predict_from_files_sequential(images, out, save_probabilities=True)


if __name__ == "__main__":
    main()
