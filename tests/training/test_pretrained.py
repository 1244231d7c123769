"""Beginning with the weights of another training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segplug.errors import CheckpointError, UsageError
from segplug.kernel import Kernel
from segplug.model import ComponentRef
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.pretrained import transfer
from segplug.stages.train import train

NAME, PLANS = "Dataset601_Phantom", "tinyPlans"
LABELS = {"background": 0, "a": 1, "b": 2}
PATCH = (16, 16, 16)


def network(channels: int = 1, outputs: int = 3, seed: int = 0, kind: str = "plain_unet", width: int = 4):
    counts = {"n_blocks_per_stage": [1, 1]} if kind != "plain_unet" else {"n_conv_per_stage": [1, 1]}
    options = {
        "n_stages": 2,
        "features_per_stage": [width, 2 * width],
        "conv_op": "torch.nn.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 2,
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": "torch.nn.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        **counts,
    }
    torch.manual_seed(seed)
    build = Kernel(discover=False).registry.build("architectures", ComponentRef(kind, options))
    return build(channels, outputs, deep_supervision=True)


def saved(folder: Path, source, labels=LABELS, **more) -> Path:
    init = {"init_args": {"dataset_json": {"labels": labels}}}
    content = {"network_weights": source.state_dict(), **init, **more}
    torch.save(content, folder / "checkpoint_final.pth")
    return folder / "checkpoint_final.pth"


def test_the_same_labels_keep_the_outputs(tmp_path: Path) -> None:
    source, target = network(seed=1), network(seed=2)
    done = transfer(target, saved(tmp_path, source), LABELS, PATCH)
    assert not done.anew
    assert done.taken == len(list(target.named_parameters()))
    for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("outputs", [3, 5])
def test_other_labels_begin_the_outputs_anew(tmp_path: Path, outputs: int) -> None:
    source, target, before = network(seed=1), network(seed=2, outputs=outputs), network(seed=2, outputs=outputs)
    done = transfer(target, saved(tmp_path, source, {"background": 0, "x": 1, "y": 2}), LABELS, PATCH)
    assert done.anew == {"decoder.seg_layers": "the labels are others"}
    assert "begins anew: decoder.seg_layers: the labels are others" in done.lines()
    fresh = {name for name, weight in before.named_parameters() if torch.equal(weight, target.state_dict()[name])}
    heads = {name for name in target.state_dict() if "seg_layers" in name}
    assert heads <= fresh
    assert torch.equal(target.state_dict()["decoder.stages.0.convs.0.conv.weight"],
                       source.state_dict()["decoder.stages.0.convs.0.conv.weight"])  # fmt: skip


def test_more_channels_share_the_first_layer_of_one(tmp_path: Path) -> None:
    source, target = network(seed=1).eval(), network(channels=3, seed=2).eval()
    done = transfer(target, saved(tmp_path, source), LABELS, PATCH)
    assert not done.anew
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(target(image.expand(1, 3, 8, 8, 8))[0], source(image)[0])


def test_other_channels_begin_the_first_layer_anew(tmp_path: Path) -> None:
    done = transfer(network(channels=3), saved(tmp_path, network(channels=2)), LABELS, PATCH)
    assert done.anew == {"encoder.stages.0.0.convs.0.conv.weight": "made for 2 channels, not 3"}


def test_another_network_is_refused(tmp_path: Path) -> None:
    target = network(seed=2)
    before = {name: weight.clone() for name, weight in target.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"made for another network: .* 8 x 1 x 3 x 3 x 3, not 4 x 1 x 3 x 3 x 3"):
        transfer(target, saved(tmp_path, network(width=8)), LABELS, PATCH)
    assert all(torch.equal(before[name], weight) for name, weight in target.state_dict().items())


@pytest.mark.parametrize("content", [{"a": 1}, [1], {"network_weights": {}}])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        transfer(network(), tmp_path / "x.pth", LABELS, PATCH)


def test_an_encoder_of_nnssl(tmp_path: Path) -> None:
    """Its checkpoints hold a decoder too, of another task: encoder and stem are taken."""
    kind = "residual_encoder_unet"
    source, target = network(seed=1, outputs=1, kind=kind), network(seed=2, kind=kind, channels=2)
    plan = {
        "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None},
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
        "pretrain_num_input_channels": 1,
    }
    file = saved(tmp_path, source, nnssl_adaptation_plan=plan, citations=[])
    done = transfer(target, file, LABELS, PATCH)
    assert done.anew == {"decoder": "not in the checkpoint", "decoder.seg_layers": "not in the checkpoint"}
    for name, weight in target.encoder.named_parameters():
        if name == "stem.convs.0.conv.weight":
            torch.testing.assert_close(weight, source.encoder.state_dict()[name].expand_as(weight) / 2)
        else:
            assert torch.equal(weight, source.encoder.state_dict()[name]), name


@pytest.mark.parametrize("labels", [LABELS, {"background": 0, "x": 1}], ids=["the same labels", "others"])
def test_a_transformer_for_other_patches(tmp_path: Path, labels: dict[str, int]) -> None:
    """Positions are interpolated between the tokens; the decoder's widths follow from the classes: it begins anew."""
    options = {"embed_dim": 24, "eva_depth": 1, "eva_numheads": 4}
    build = Kernel(discover=False).registry.build("architectures", ComponentRef("primus", options))
    source = build(1, 3, deep_supervision=False, patch_size=(32, 16, 16))
    target = build(1, len(labels), deep_supervision=False, patch_size=(16, 16, 16))
    plans = {"configurations": {"3d_fullres": {"patch_size": [32, 16, 16]}}}
    file = saved(tmp_path, source, init_args={"dataset_json": {"labels": LABELS}, "plans": plans})
    done = transfer(target, file, labels, (16, 16, 16))
    assert done.anew == ({} if labels == LABELS else {"up_projection": "the labels are others"})
    assert done.adapted == {"eva.pos_embed": "interpolated from 4 x 2 x 2 tokens to 2 x 2 x 2"}
    weights, found = source.state_dict(), target.state_dict()
    pairs = weights["eva.pos_embed"].reshape(2, 2, 4, 24).mean(1).reshape(1, 8, 24)
    torch.testing.assert_close(found["eva.pos_embed"], pairs)
    same = {name for name, weight in weights.items() if name in found and torch.equal(found[name], weight)}
    kept = {name for name in found if not name.startswith("up_projection") or labels == LABELS}
    assert kept - {"eva.pos_embed"} <= same


# --- in a training ---------------------------------------------------------------------------------------------------


def run(project, fold=0, **options):
    return train(project, NAME, "3d_fullres", fold, plans_name=PLANS, epochs=1, precision="fp32", **options)


def test_training_begins_with_the_weights(make_project, same_weights, tmp_path: Path) -> None:
    first = run(make_project(results="first"))
    slow = ["trainer.lr=1e-12", "trainer.optimizer=sgd", "trainer.weight_decay=0", "trainer.schedule=constant"]
    second = run(make_project(results="second"), overrides=slow, pretrained=first.checkpoint())
    a, b = (read_checkpoint(fold.checkpoint()) for fold in (first, second))
    for name, weight in a.weights.items():
        torch.testing.assert_close(b.weights[name], weight, atol=1e-7, rtol=1e-5)
    assert b.extension["pretrained"]["file"] == str(first.checkpoint())
    log = "".join(file.read_text() for file in second.folder.glob("training_log_*.txt"))
    assert "weights taken over from" in log

    # continuing: the same file may be named again, another may not
    project = make_project(results="second")
    assert train(
        project, NAME, "3d_fullres", 0, plans_name=PLANS, epochs=2, continue_=True, pretrained=first.checkpoint()
    )
    assert read_checkpoint(second.checkpoint()).extension["pretrained"] == b.extension["pretrained"]
    with pytest.raises(UsageError, match=r"began with .*first"):
        run(make_project(results="second"), continue_=True, pretrained=second.checkpoint("best"))
    with pytest.raises(UsageError, match="no such file"):
        run(make_project(results="third"), pretrained=tmp_path / "nothing.pth")


def test_freezing_and_rates_of_parts(make_project) -> None:
    first = run(make_project(results="first"))
    begun = read_checkpoint(first.checkpoint()).weights
    # a rate of what is frozen means nothing: it may stand in a plan's recipe
    rates = ["trainer.lr_factors.decoder.seg_layers=0", "trainer.lr_factors.encoder.stages.0=0.5"]
    options = ["trainer.freeze=encoder", *rates, "trainer.optimizer=sgd"]
    second = run(make_project(results="second"), overrides=options, pretrained=first.checkpoint())
    found = read_checkpoint(second.checkpoint()).weights
    changed = {name for name, weight in found.items() if not torch.equal(weight, begun[name])}
    assert changed
    assert all(name.startswith(("decoder.stages", "decoder.transpconvs")) for name in changed)
    with pytest.raises(UsageError, match=r"no weights in 'encodr'. It has: encoder"):
        run(make_project(results="third"), overrides=["trainer.freeze=encodr"])
