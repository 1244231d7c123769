"""Run with nnunetv2's Python: builds its networks, saves initial weights, order of parameters and outputs.

python peer_networks.py variants.json OUT.pt
"""

import json
import sys

import torch

LIBRARY = "dynamic_network_architectures.architectures.unet"


def main() -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    results = []
    with open(sys.argv[1], encoding="utf-8") as file:
        variants = json.load(file)
    for kind, dimensions, arguments in variants:
        for deep_supervision in (False, True):
            torch.manual_seed(1)
            imported = [n for n in ("conv_op", "norm_op", "dropout_op", "nonlin", "block") if n in arguments]
            network = get_network_from_plans(
                f"{LIBRARY}.{kind}", arguments, imported, 2, 3, deep_supervision=deep_supervision
            )
            results.append(measure(network, dimensions))
    torch.save(results, sys.argv[2])


def measure(network, dimensions):
    initial = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    order = [name for name, _ in network.named_parameters()]
    noise = torch.Generator().manual_seed(5)
    x = torch.randn(2, 2, *(8, 16, 16)[-dimensions:], generator=noise)
    with torch.no_grad():
        for parameter in network.parameters():  # norms begin at zero: make every weight count
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
        output = network.eval()(x)
    return initial, order, output if isinstance(output, list) else [output]


if __name__ == "__main__":
    main()
