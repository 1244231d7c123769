"""Networks of plans, run by the Python of nnunetv2's environment. Reads from standard input

    [{"plans": FILE, "configuration": NAME, "channels": 1, "classes": 3, "weights": FILE.pt}, ...]

For each: builds nnunetv2's network, loads the weights that segplug wrote into the file, all of them and no others, and
writes FILE.pt.peer: outputs with these weights, its own initial weights, outputs with those; first without, then with
deep supervision. The answer is the list of messages of loading, empty where all went well.
"""

import contextlib
import json
import sys


def outputs(network, patch_size, channels):
    import torch

    x = torch.randn(1, channels, *patch_size, generator=torch.Generator().manual_seed(5))
    found = []
    for deep_supervision in (False, True):
        network.decoder.deep_supervision = deep_supervision
        with torch.no_grad():
            made = network.eval()(x)
        found.append(list(made) if isinstance(made, (list, tuple)) else [made])
    return found


def main():
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    messages = []
    with contextlib.redirect_stdout(sys.stderr):
        for job in json.load(sys.stdin):
            plans = PlansManager(job["plans"])
            configuration = plans.get_configuration(job["configuration"])
            torch.manual_seed(7)
            network = nnUNetTrainer.build_network_architecture(
                plans, configuration, job["channels"], job["classes"], True
            )
            own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
            size = configuration.patch_size
            own_outputs = outputs(network, size, job["channels"])
            try:
                network.load_state_dict(torch.load(job["weights"], weights_only=True), strict=True)
                messages.append("")
            except RuntimeError as error:
                messages.append(str(error))
            given_outputs = outputs(network, size, job["channels"])
            found = {"given": given_outputs, "weights": own, "own": own_outputs}
            torch.save(found, f"{job['weights']}.peer")
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(messages, file)


if __name__ == "__main__":
    main()
