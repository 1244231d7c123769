"""Model folders: what is found, what is refused, and that weights are read once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segplug.errors import CheckpointError, DataError, PluginError, UsageError
from segplug.kernel import Kernel
from segplug.protocols import Model
from segplug.runtime import trained_model
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.trained_model import TrainedModel

Make = Callable[..., Path]


def test_a_model_folder(make_model: Make, kernel: Kernel) -> None:
    model: Model = TrainedModel(kernel.registry, make_model(folds=(1, 0, 3), mirror_axes=(0, 2)))
    assert model.folds == (0, 1, 3)
    assert model.configuration.name == "3d"
    assert model.mirror_axes == (0, 2)
    assert model.dataset.labels.foreground_labels == (1, 2)
    networks = model.networks(torch.device("cpu"))
    assert len(networks) == 3
    for network, fold in zip(networks, model.folds, strict=True):
        wanted = read_checkpoint(model.folder / f"fold_{fold}" / "checkpoint_final.pth").weights
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in network.state_dict().items())
        assert not network.training
        assert network(torch.randn(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)


def test_weights_are_read_once(make_model: Make, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TrainedModel(kernel.registry, make_model(folds=(0, 1)))
    first = model.networks(torch.device("cpu"))
    monkeypatch.setattr(trained_model, "build_network", None)
    assert model.networks(torch.device("cpu")) is first


def test_loading_draws_no_random_numbers(make_model: Make, kernel: Kernel) -> None:
    folder = make_model()
    state = torch.get_rng_state()
    TrainedModel(kernel.registry, folder).networks(torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)


def test_folds_that_were_asked_for(make_model: Make, kernel: Kernel) -> None:
    folder = make_model(folds=(0, 1, "all"))
    assert TrainedModel(kernel.registry, folder).folds == (0, 1)  # nnU-Net's rule: `all` only by name
    assert TrainedModel(kernel.registry, folder, [1]).folds == (1,)
    assert TrainedModel(kernel.registry, folder, ["all", "1"]).folds == ("all", 1)
    assert TrainedModel(kernel.registry, make_model("other", folds=("all",))).folds == ("all",)


def test_what_is_missing_is_named_and_what_there_is(make_model: Make, kernel: Kernel, tmp_path: Path) -> None:
    folder = make_model(folds=(0, 2))
    shutil.move(folder / "fold_2" / "checkpoint_final.pth", folder / "fold_2" / "checkpoint_best.pth")
    with pytest.raises(UsageError, match=r"fold 2, 5 has no checkpoint_final.*0 \(final\), 2 \(best\)"):
        TrainedModel(kernel.registry, folder, [2, 5])
    assert TrainedModel(kernel.registry, folder, checkpoint="best").folds == (2,)
    with pytest.raises(UsageError, match=r"no fold has a checkpoint_latest\.pth"):
        TrainedModel(kernel.registry, folder, checkpoint="latest")
    with pytest.raises(UsageError, match="expected one of final, best, latest"):
        TrainedModel(kernel.registry, folder, checkpoint="newest")
    with pytest.raises(UsageError, match="no such model folder"):
        TrainedModel(kernel.registry, tmp_path / "nothing")
    (folder / "dataset.json").unlink()
    with pytest.raises(UsageError, match=r"no dataset\.json, so it is no model folder"):
        TrainedModel(kernel.registry, folder)


def test_damaged_descriptions_are_named(make_model: Make, kernel: Kernel) -> None:
    folder = make_model()
    plans = (folder / "plans.json").read_text()
    (folder / "plans.json").write_text(plans[:100])
    with pytest.raises(DataError, match=r"plans\.json: not a JSON file"):
        TrainedModel(kernel.registry, folder)
    (folder / "plans.json").write_text("[]")
    with pytest.raises(DataError, match=r"plans\.json: a list; expected an object"):
        TrainedModel(kernel.registry, folder)
    changed = json.loads(plans)
    changed["configurations"]["other"] = changed["configurations"].pop("3d")
    (folder / "plans.json").write_text(json.dumps(changed))
    with pytest.raises(CheckpointError, match=r"of configuration '3d', which plans\.json beside it does not have"):
        TrainedModel(kernel.registry, folder)


def test_weights_of_another_plan_are_refused(make_model: Make, kernel: Kernel) -> None:
    folder = make_model()
    other = make_model("other", features=6)
    shutil.copy(other / "plans.json", folder / "plans.json")
    with pytest.raises(CheckpointError, match=r"fold_0/checkpoint_final\.pth: weights do not fit.*\(4, 1, 3, 3, 3\)"):
        TrainedModel(kernel.registry, folder).networks(torch.device("cpu"))


def test_folds_of_different_configurations_are_refused(make_model: Make, kernel: Kernel) -> None:
    folder = make_model()
    other = make_model("other", patch_size=(8, 8), folds=(1,))
    shutil.copytree(other / "fold_1", folder / "fold_1")
    with pytest.raises(CheckpointError, match="different configurations"):
        TrainedModel(kernel.registry, folder)


def test_other_providers_need_consent(make_model: Make, kernel: Kernel) -> None:
    entry = {"name": "zscore", "plugin": "mine", "distribution": "segplug-mine", "version": "1.2"}
    folder = make_model(provenance=({"kind": "normalizers", **entry},))
    with pytest.raises(PluginError, match=r"(?s)segplug-mine 1\.2.*--allow-provider-change"):
        TrainedModel(kernel.registry, folder)
    TrainedModel(kernel.registry, folder, allow_provider_change=True)


def test_plugins_that_only_training_needs_may_be_gone(make_model: Make, kernel: Kernel) -> None:
    entry = {"name": "my_loss", "plugin": "mine", "distribution": "segplug-mine", "version": "1.2"}
    TrainedModel(kernel.registry, make_model(provenance=({"kind": "losses", **entry},)))


def test_an_architecture_that_is_not_installed(make_model: Make, kernel: Kernel) -> None:
    folder = make_model()
    plans: Any = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["3d"]["architecture"]["network_class_name"] = "monai.networks.nets.SwinUNETR"
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(PluginError, match=r"'monai\.networks\.nets\.SwinUNETR'"):
        TrainedModel(kernel.registry, folder).networks(torch.device("cpu"))


def test_identity_is_that_of_everything_that_decides(make_model: Make, kernel: Kernel) -> None:
    folder = make_model(folds=(0, 1))
    identity = TrainedModel(kernel.registry, folder).identity
    assert TrainedModel(kernel.registry, folder).identity == identity
    assert TrainedModel(kernel.registry, folder, [0]).identity != identity
    shutil.copy(folder / "fold_0" / "checkpoint_final.pth", folder / "fold_1" / "checkpoint_final.pth")
    assert TrainedModel(kernel.registry, folder).identity != identity
