"""Encoders pretrained by masked autoencoding, in the files that nnssl publishes.

Their layout (nnssl's `adapt_checkpoint` script, and its models on Hugging Face as of 2026): `network_weights` of a
ResEnc-L autoencoder with every convolution twice (`conv` and `all_modules.0`) and the encoder again under
`decoder.encoder`, `citations`, and `nnssl_adaptation_plan`. The network here is as theirs, but narrower and with fewer
blocks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segplug.errors import CheckpointError
from segplug.model import ComponentRef
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.plan_codec import write_plan
from segplug.runtime.pretrained import transfer
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.preprocess import preprocess
from segplug.stages.train import train
from segplug.testing import Phantom, write_phantom_dataset

NAME, PLANS = "Dataset640_Phantom", "likeNnssl"
BLOCKS, FEATURES = [1, 2, 2], [4, 8, 16]


def architecture(usual: ComponentRef) -> ComponentRef:
    options = {key: usual.options[key] for key in ("conv_op", "norm_op", "norm_op_kwargs", "nonlin", "nonlin_kwargs")}
    stages = len(BLOCKS)
    return ComponentRef(
        "residual_encoder_unet",
        {
            **options,
            "n_stages": stages,
            "features_per_stage": FEATURES,
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_blocks_per_stage": BLOCKS,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "conv_bias": True,
        },
    )


def published(folder: Path, network: torch.nn.Module) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint as nnssl publishes it, and its weights."""
    weights = {}
    for name, tensor in network.state_dict().items():
        weights[name] = tensor
        if ".convs." in name and name.endswith(("conv.weight", "conv.bias")):
            weights[name.replace(".conv.", ".all_modules.0.")] = tensor
        if ".convs." in name and name.endswith(("norm.weight", "norm.bias")):
            weights[name.replace(".norm.", ".all_modules.1.")] = tensor
    for name in [n for n in weights if n.startswith("encoder.")]:
        weights[f"decoder.{name}"] = weights[name]
    pretraining = {
        "spacing": [1, 1, 1],
        "spacing_style": "onemmiso",
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "patch_size": [160, 160, 160],
    }
    names = {
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
        "key_to_lpe": None,
    }
    return save(folder, "ResEncL", weights, names, pretraining), weights


def published_primus(folder: Path, network: torch.nn.Module) -> tuple[Path, dict[str, torch.Tensor]]:
    """The same of `EvaMAE`: embedding and encoder of Primus, a second transformer as decoder, one output."""
    weights = dict(network.state_dict())
    decoder = {name.replace("eva.", "decoder.", 1): w + 1 for name, w in weights.items() if name.startswith("eva.")}
    names = {
        "key_to_encoder": "eva",
        "key_to_stem": "down_projection",
        "keys_to_in_proj": ["down_projection.proj"],
        "key_to_lpe": "eva.pos_embed",
    }
    # the trainer sets its patch size itself; the plan has another
    return save(folder, "PrimusM", {**weights, **decoder}, names, {"patch_size": [64, 64, 64]}), weights


def save(folder: Path, kind: str, weights: dict[str, torch.Tensor], names: dict, pretraining: dict) -> Path:
    content = {
        "network_weights": weights,
        "citations": [{"Architecture": ["..."], "Method": ["..."]}],
        "nnssl_adaptation_plan": {
            "architecture_plans": {"arch_class_name": kind, "arch_kwargs": None, "arch_kwargs_requiring_import": None},
            "pretrain_plan": {
                "dataset_name": "Dataset745_OpenMind",
                "plans_name": "nnsslPlans",
                "original_median_spacing_after_transp": [1, 1, 1],
                "configurations": {"onemmiso": pretraining},
            },
            "pretrain_num_input_channels": 1,
            "recommended_downstream_patchsize": [160, 160, 160],
            **names,
        },
        "trainer_name": "BaseMAETrainer_BS8",
    }
    torch.save(content, folder / "checkpoint_final.pth")
    return folder / "checkpoint_final.pth"


@pytest.mark.parametrize("channels", [("MRI",), ("T1", "T2")], ids=["one channel", "two channels"])
def test_training_begins_with_a_pretrained_encoder(tmp_path: Path, open_small, channels: tuple[str, ...]) -> None:
    write_phantom_dataset(tmp_path / "raw" / NAME, Phantom((16, 24, 22), (1.0, 1.0, 1.0), 1.0, channels), cases=3)
    with open_small(tmp_path) as project:
        fingerprint(project, NAME)
        made = plan(project, NAME, planner="compact", plans_name=PLANS)
        usual = made.configurations["3d_fullres"]
        network = architecture(usual.architecture)
        torch.manual_seed(3)
        autoencoder = project.kernel.registry.build("architectures", network)(1, 1, deep_supervision=False)
        file, weights = published(tmp_path, autoencoder)
        small = replace(usual, patch_size=(16, 16, 16), batch_size=2, architecture=network)
        write_plan(project.workspace.plans_file(NAME, PLANS), replace(made, configurations={"3d_fullres": small}))
        preprocess(project, NAME, plans_name=PLANS)
        length = ("epochs=1", "iterations_per_epoch=2", "val_iterations_per_epoch=1", "freeze=encoder")
        with pytest.warns(UserWarning, match="begins anew: decoder: not in the checkpoint"):
            fold = train(
                project,
                NAME,
                "3d_fullres",
                0,
                plans_name=PLANS,
                overrides=[f"trainer.{setting}" for setting in length],
                device="cpu",
                precision="fp32",
                pretrained=file,
            )
    found = read_checkpoint(fold.checkpoint())
    encoder = [name for name in weights if name.startswith("encoder.")]
    assert len(encoder) > 20
    assert set(encoder) <= set(found.weights)
    for name in encoder:
        if name.startswith("encoder.stem.convs.0.") and name.endswith("weight") and weights[name].ndim > 1:
            first = weights[name].expand_as(found.weights[name]) / len(channels)  # equal channels: the same response
            torch.testing.assert_close(found.weights[name], first)
        else:
            assert torch.equal(found.weights[name], weights[name]), name
    assert found.weights["decoder.seg_layers.0.weight"].shape[0] == 3
    log = "".join(file.read_text() for file in fold.folder.glob("training_log_*.txt"))
    assert "weights taken over from" in log
    assert found.extension["pretrained"]["file"] == str(file)


PRIMUS = ComponentRef("primus", {"embed_dim": 24, "eva_depth": 2, "eva_numheads": 4, "init_values": 0.1})


@pytest.mark.parametrize("channels", [("MRI",), ("T1", "T2")], ids=["one channel", "two channels"])
def test_training_begins_with_a_pretrained_transformer(tmp_path: Path, open_small, channels: tuple[str, ...]) -> None:
    """Pretrained on cubes of 32 voxels, 4 tokens a side; here patches have 2 x 3 x 2 tokens."""
    write_phantom_dataset(tmp_path / "raw" / NAME, Phantom((16, 24, 22), (1.0, 1.0, 1.0), 1.0, channels), cases=3)
    with open_small(tmp_path) as project:
        fingerprint(project, NAME)
        made = plan(project, NAME, planner="compact", plans_name=PLANS)
        build = project.kernel.registry.build
        torch.manual_seed(3)
        pretrained = build("architectures", PRIMUS)(1, 1, deep_supervision=False, patch_size=(32, 32, 32))
        file, weights = published_primus(tmp_path, pretrained)
        usual = made.configurations["3d_fullres"]
        small = replace(usual, patch_size=(16, 24, 16), batch_size=2, architecture=PRIMUS)
        write_plan(project.workspace.plans_file(NAME, PLANS), replace(made, configurations={"3d_fullres": small}))
        preprocess(project, NAME, plans_name=PLANS)
        length = ("epochs=1", "iterations_per_epoch=2", "val_iterations_per_epoch=1")
        settings = [f"trainer.{setting}" for setting in (*length, "freeze=eva,down_projection")]
        with pytest.warns(UserWarning, match="begins anew: up_projection: not in the checkpoint") as told:
            fold = train(
                project,
                NAME,
                "3d_fullres",
                0,
                plans_name=PLANS,
                overrides=settings,
                device="cpu",
                precision="fp32",
                pretrained=file,
            )
    found = read_checkpoint(fold.checkpoint())
    (message,) = {str(warning.message) for warning in told}
    assert message.count("begins anew") == 1
    assert "eva.pos_embed: interpolated from 4 x 4 x 4 tokens to 2 x 3 x 2" in message
    for name, weight in found.weights.items():
        if name == "eva.pos_embed":
            grid = weights[name].reshape(2, 2, 4, 2, 2, 24)
            middle = weight.reshape(2, 3, 2, 24)[:, 1]  # between the second and third token of the axis
            torch.testing.assert_close(middle, grid[:, :, 1:3].mean((1, 2, 4)))
        elif name == "down_projection.proj.weight":
            torch.testing.assert_close(weight, weights[name].expand_as(weight) / len(channels))
        elif not name.startswith("up_projection"):
            assert torch.equal(weight, weights[name]), name


def test_a_plan_that_does_not_fit_is_refused_in_words(tmp_path: Path, open_small) -> None:
    write_phantom_dataset(tmp_path / "raw" / NAME, Phantom((16, 24, 22), (1.0, 1.0, 1.0)), cases=3)
    with open_small(tmp_path) as project:
        fingerprint(project, NAME)
        usual = plan(project, NAME, planner="compact", plans_name=PLANS).configurations["3d_fullres"].architecture
        registry = project.kernel.registry
        file, _ = published(
            tmp_path, registry.build("architectures", architecture(usual))(1, 1, deep_supervision=False)
        )
        wider = architecture(usual).with_options(features_per_stage=[8, 16, 32])
        with pytest.raises(CheckpointError, match="made for another network"):
            transfer(registry.build("architectures", wider)(1, 3, deep_supervision=False), file, {}, (16, 16, 16))
