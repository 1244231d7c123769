"""Arrays as nnunetv2 resamples them, run by the Python of its environment. Reads from standard input

    {"arrays": FILE.npz, "jobs": [{"function": NAME, "array": KEY, "new_shape": [...], "spacing": [...],
     "new_spacing": [...], "options": {...}}, ...]}

and writes results.npz ("0", "1", ...) beside the file that is its argument.
"""

import json
import os
import sys


def main():
    import numpy as np
    from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name

    asked = json.load(sys.stdin)
    arrays, results = np.load(asked["arrays"]), {}
    for number, job in enumerate(asked["jobs"]):
        function = recursive_find_resampling_fn_by_name(job["function"])
        place = (job["new_shape"], job["spacing"], job["new_spacing"])
        results[str(number)] = function(arrays[job["array"]], *place, **job["options"])
    np.savez(os.path.join(os.path.dirname(sys.argv[1]), "results.npz"), **results)
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(len(results), file)


if __name__ == "__main__":
    main()
