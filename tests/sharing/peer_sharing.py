"""nnunetv2's own model sharing, in the folders that the environment names.

python peer_sharing.py export DATASET CONFIGURATION PLANS ZIP
python peer_sharing.py install ZIP DATASET CONFIGURATION PLANS IMAGES OUT     installs, then predicts with fold 0
"""

import sys


def main() -> None:
    task, *arguments = sys.argv[1:]
    if task == "export":
        from nnunetv2.model_sharing.model_export import export_pretrained_model

        dataset, configuration, plans, file = arguments
        export_pretrained_model(dataset, file, (configuration,), plans_identifier=plans, folds=(0,))
        return
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point
    from nnunetv2.model_sharing.model_import import install_model_from_zip_file

    file, dataset, configuration, plans, images, out = arguments
    install_model_from_zip_file(file)
    sys.argv = ["nnUNetv2_predict", "-i", images, "-o", out, "-d", dataset, "-c", configuration, "-p", plans]
    sys.argv += ["-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar"]
    predict_entry_point()


if __name__ == "__main__":
    main()
