"""Run with nnunetv2's Python: its Primus networks, in training and out of it.

python peer_primus.py build jobs.json OUT.pt     networks of small sizes: initial weights, outputs, gradients
python peer_primus.py classes OUT.json           networks of its trainer classes: names and shapes of the weights
python peer_primus.py load TRAINER MODEL_FOLDER  load a model folder of that class as its predictor does
"""

import json
import sys
import types

import torch

LIBRARY = "dynamic_network_architectures.architectures.primus"


def build(kind, arguments, size):
    module = __import__(LIBRARY, fromlist=[kind])
    return getattr(module, kind)(num_classes=3, input_channels=2, input_shape=size, **arguments)


def measure(network, size):
    """Initial weights, order of parameters, output, and loss and gradients of a step in training mode."""
    initial = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    order = [name for name, _ in network.named_parameters()]
    noise = torch.Generator().manual_seed(5)
    x = torch.randn(3, 2, *size, generator=noise)
    with torch.no_grad():
        for parameter in network.parameters():  # scales begin small: make every weight count
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
        output = network.eval()(x)
    torch.manual_seed(7)  # which samples skip which parts
    network.train()(x).square().mean().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    return initial, order, output, gradients


def main():
    from without_torchvision import use_no_torchvision

    use_no_torchvision()
    what, *arguments = sys.argv[1:]
    if what == "build":
        with open(arguments[0], encoding="utf-8") as file:
            jobs = json.load(file)
        found = []
        for kind, options, size in jobs:
            torch.manual_seed(1)
            found.append(measure(build(kind, options, size), size))
        torch.save(found, arguments[1])
    elif what == "classes":
        describe(arguments[0])
    else:
        load(*arguments)


def describe(out):
    """On a device without memory: the sizes are the real ones."""
    from nnunetv2.training.nnUNetTrainer.primus import primus_trainers

    found = {}
    for name, made in vars(primus_trainers).items():
        if isinstance(made, type) and "Primus" in name and name != "AbstractPrimus" and hasattr(made, "train_step"):
            configuration = types.SimpleNamespace(patch_size=(16, 32, 24))
            with torch.device("meta"):
                network = made.build_network_architecture(None, configuration, 2, 4)
            found[name] = [[name, list(tensor.shape)] for name, tensor in network.state_dict().items()]
    with open(out, "w", encoding="utf-8") as file:
        json.dump(found, file)


def load(trainer, folder):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.primus import primus_trainers  # noqa: F401

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(folder, (0,))
    assert predictor.trainer_name == trainer, predictor.trainer_name
    predictor.network.load_state_dict(predictor.list_of_parameters[0])


if __name__ == "__main__":
    main()
