"""Cases as nnunetv2 preprocesses them, run by the Python of its environment. Reads from standard input

    [{"images": [FILE, ...], "label": FILE or null, "plans": FILE, "configuration": NAME, "dataset": FILE}, ...]

and writes N.npz (data, target) for the N-th beside the file that is its argument, and into that file what else is known
of each: {"properties": {...}, "counts": {class: sampled locations}}.
"""

import contextlib
import json
import os
import sys

CROPPING = ("shape_before_cropping", "bbox_used_for_cropping", "shape_after_cropping_and_before_resampling")


def main():
    import numpy as np
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    answers = []
    with contextlib.redirect_stdout(sys.stderr):
        for number, job in enumerate(json.load(sys.stdin)):
            plans = PlansManager(job["plans"])
            data, target, properties = DefaultPreprocessor(verbose=False).run_case(
                job["images"], job["label"], plans, plans.get_configuration(job["configuration"]), job["dataset"]
            )
            np.savez(os.path.join(os.path.dirname(sys.argv[1]), f"{number}.npz"), data=data, target=target)
            kept = {key: np.asarray(properties[key]).tolist() for key in CROPPING}
            kept["spacing"] = [float(each) for each in properties["spacing"]]
            counts = {str(key): len(voxels) for key, voxels in properties.get("class_locations", {}).items()}
            answers.append({"properties": kept, "counts": counts})
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(answers, file)


if __name__ == "__main__":
    main()
