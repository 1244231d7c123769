"""segplug's built-in plugins, and the reference for plugin authors.

This file is the catalogue: every component by name, with nnU-Net's own names as aliases. The implementations stand in
one file per family and are imported when they are first used.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segplug import Component, hookimpl
from segplug_builtin.trainers.nnunet_classes import CLASSES, in_words

HERE = "segplug_builtin"
DNA = "dynamic_network_architectures.architectures.unet"
PRIMUS = "dynamic_network_architectures.architectures.primus"


@hookimpl
def segplug_readers() -> Iterable[Component[Any]]:
    at = f"{HERE}.readers"
    yield Component("simpleitk", f"{at}:read_simpleitk", "NIfTI, NRRD, MHA and what else ITK reads", ("SimpleITKIO",))
    yield Component(
        "simpleitk_reorient", f"{at}:read_simpleitk_reorient", "the same, turned to RAS", ("SimpleITKIOWithReorient",)
    )
    yield Component("nibabel", f"{at}:read_nibabel", "NIfTI by nibabel", ("NibabelIO",))
    yield Component(
        "nibabel_reorient", f"{at}:read_nibabel_reorient", "the same, turned to RAS", ("NibabelIOWithReorient",)
    )
    yield Component("tiff_stack", f"{at}:read_tiff_stack", "3D TIFF stacks, spacing in CASE.json", ("Tiff3DIO",))
    yield Component("natural_image", f"{at}:read_natural_image", "2D png, bmp, tif", ("NaturalImage2DIO",))


@hookimpl
def segplug_writers() -> Iterable[Component[Any]]:
    at = f"{HERE}.writers"
    yield Component("simpleitk", f"{at}:write_simpleitk", "NIfTI, NRRD, MHA and what else ITK writes", ("SimpleITKIO",))
    yield Component(
        "simpleitk_reorient",
        f"{at}:write_simpleitk_reorient",
        "the same, turned back to the input's orientation",
        ("SimpleITKIOWithReorient",),
    )
    yield Component("nibabel", f"{at}:write_nibabel", "NIfTI by nibabel", ("NibabelIO",))
    yield Component(
        "nibabel_reorient", f"{at}:write_nibabel_reorient", "the same, turned back", ("NibabelIOWithReorient",)
    )
    yield Component("tiff_stack", f"{at}:write_tiff_stack", "3D TIFF stacks", ("Tiff3DIO",))
    yield Component("natural_image", f"{at}:write_natural_image", "2D png, bmp, tif", ("NaturalImage2DIO",))


@hookimpl
def segplug_normalizers() -> Iterable[Component[Any]]:
    at = f"{HERE}.normalizers"
    yield Component("zscore", f"{at}:zscore", "mean 0, standard deviation 1 per image", ("ZScoreNormalization",))
    yield Component("ct", f"{at}:ct", "clip to the data set's percentiles, then its z-score", ("CTNormalization",))
    yield Component("none", f"{at}:none", "values as they are", ("NoNormalization",))
    yield Component("rescale_to_0_1", f"{at}:rescale_to_0_1", "image range to 0..1", ("RescaleTo01Normalization",))
    yield Component("rgb_to_0_1", f"{at}:rgb_to_0_1", "0..255 to 0..1", ("RGBTo01Normalization",))


@hookimpl
def segplug_resamplers() -> Iterable[Component[Any]]:
    yield Component(
        "separable",
        f"{HERE}.resamplers:separable",
        "spline interpolation, one matrix per axis",
        ("resample_data_or_seg_to_shape",),
    )
    yield Component(
        "torch_linear",
        f"{HERE}.torch_resampling:torch_linear",
        "linear interpolation by torch",
        ("resample_torch_fornnunet",),
    )
    yield Component("none", f"{HERE}.resamplers:no_resampling", "images as they are", ("no_resampling_hack",))


@hookimpl
def segplug_planners() -> Iterable[Component[Any]]:
    at = f"{HERE}.planners"
    yield Component("default", f"{at}.default:plan_default", "plain U-Nets for 8 GB", ("ExperimentPlanner",))
    for size in ("m", "l", "xl"):
        yield Component(
            f"resenc_{size}",
            f"{at}.residual_encoder:plan_resenc_{size}",
            f"residual-encoder U-Nets, size {size.upper()}",
            (f"nnUNetPlannerResEnc{size.upper()}",),
        )
    at_resenc, at_resampling, large = f"{at}.residual_encoder", f"{at}.resampling", "residual-encoder U-Nets, size L"
    yield Component(
        "resenc", f"{at_resenc}:plan_resenc", "residual-encoder U-Nets before there were sizes", ("ResEncUNetPlanner",)
    )
    yield Component(
        "default_torchres",
        f"{at_resampling}:plan_default_torch",
        "plain U-Nets for 8 GB, images resampled linearly by torch",
        ("nnUNetPlanner_torchres",),
    )
    yield Component(
        "resenc_l_torchres",
        f"{at_resampling}:plan_resenc_l_torch",
        f"{large}, images resampled linearly by torch",
        ("nnUNetPlannerResEncL_torchres",),
    )
    yield Component(
        "resenc_l_torchres_sepz",
        f"{at_resampling}:plan_resenc_l_torch_slices",
        f"{large}, the same within slices that are far apart",
        ("nnUNetPlannerResEncL_torchres_sepz",),
    )
    yield Component(
        "resenc_l_noresampling",
        f"{at_resampling}:plan_resenc_l_none",
        f"{large}, images not resampled",
        ("nnUNetPlannerResEncL_noResampling",),
    )
    yield Component(
        "compact", f"{at}.compact:plan_compact", "small U-Nets and a short schedule, for machines without a GPU"
    )


@hookimpl
def segplug_architectures() -> Iterable[Component[Any]]:
    at = f"{HERE}.architectures"
    yield Component(
        "plain_unet", f"{at}.plain_unet:build_plain_unet", "U-Net of plain convolutions", (f"{DNA}.PlainConvUNet",)
    )
    yield Component(
        "residual_encoder_unet",
        f"{at}.residual_encoder_unet:build_residual_encoder_unet",
        "U-Net with a residual encoder",
        # the second name is what nnU-Net puts into old plans that it converts, though it has no such module
        (f"{DNA}.ResidualEncoderUNet", f"{DNA.replace('.unet', '.residual_unet')}.ResidualEncoderUNet"),
    )
    transformer = "transformer on patches"
    yield Component("primus", f"{at}.primus:build_primus", transformer, (f"{PRIMUS}.Primus",))
    for version, how in (("v2", "embedded by convolutions"), ("v3", "embedded by convolutions at every resolution")):
        yield Component(
            f"primus_{version}",
            f"{at}.primus:build_primus_{version}",
            f"{transformer} {how}",
            (f"{PRIMUS}.Primus{version.upper()}",),
        )


@hookimpl
def segplug_losses() -> Iterable[Component[Any]]:
    yield Component("dice_ce", f"{HERE}.losses:DiceCrossEntropy", "soft Dice + cross-entropy (labels) or BCE (regions)")
    yield Component("dice", f"{HERE}.losses:SoftDice", "soft Dice alone")
    yield Component("ce", f"{HERE}.voxel_losses:CrossEntropy", "cross-entropy (labels) or BCE (regions) alone")
    yield Component("topk", f"{HERE}.voxel_losses:TopK", "mean cross-entropy of the k % hardest voxels")
    yield Component("dice_topk", f"{HERE}.losses:DiceTopK", "soft Dice + mean cross-entropy of the k % hardest voxels")


@hookimpl
def segplug_augmentations() -> Iterable[Component[Any]]:
    at = f"{HERE}.augmentations"
    yield Component(
        "nnunet", f"{at}.nnunet:NNUNetAugmentation", "nnU-Net's default augmentation, whole batches in torch"
    )
    yield Component(
        "batchgenerators",
        f"{at}.batchgenerators_chain:BatchgeneratorsAugmentation",
        "any chain of batchgenerators transforms",
    )
    yield Component("stronger", f"{at}.stronger:StrongerAugmentation", "nnU-Net's stronger augmentation, DA5")
    yield Component("none", f"{at}.none:NoAugmentation", "the patch as it is")


@hookimpl
def segplug_optimizers() -> Iterable[Component[Any]]:
    yield Component("sgd", f"{HERE}.optimizers:sgd", "SGD, momentum 0.99, Nesterov")
    yield Component("adam", f"{HERE}.optimizers:adam", "Adam, weight decay in the gradient")
    yield Component("adamw", f"{HERE}.optimizers:adamw", "Adam, decoupled weight decay")
    yield Component("adan", f"{HERE}.optimizers:adan", "adaptive Nesterov momentum")


@hookimpl
def segplug_schedules() -> Iterable[Component[Any]]:
    yield Component("poly", f"{HERE}.schedules:poly", "polynomial decay, exponent 0.9, per epoch; warm-up if asked for")
    yield Component("cosine", f"{HERE}.schedules:cosine", "cosine decay, per epoch; warm-up if asked for")
    yield Component("constant", f"{HERE}.schedules:constant", "one learning rate; warm-up if asked for")
    yield Component("one_cycle", f"{HERE}.schedules:one_cycle", "warm-up and cosine decay, per iteration")


@hookimpl
def segplug_splitters() -> Iterable[Component[Any]]:
    yield Component("kfold", f"{HERE}.splitters:kfold", "five folds, shuffled with seed 12345")
    yield Component(
        "grouped_kfold", f"{HERE}.splitters:grouped_kfold", "folds of whole groups (patients), alike in their strata"
    )


@hookimpl
def segplug_trainers() -> Iterable[Component[Any]]:
    at = f"{HERE}.trainers"
    yield Component(
        "nnunet", f"{at}.nnunet:NNUNetTrainer", "nnU-Net's schedule: 1000 epochs of SGD", ("nnUNetTrainer",)
    )
    yield Component("short", f"{at}.short:short_trainer", "AdamW, one cycle, a few thousand iterations")
    for name in CLASSES:
        yield Component(name, f"{at}.nnunet_classes:{name}", in_words(name))


@hookimpl
def segplug_postprocessors() -> Iterable[Component[Any]]:
    yield Component(
        "largest_component", f"{HERE}.postprocessors:LargestComponent", "keep the largest component where that helps"
    )


@hookimpl
def segplug_metrics() -> Iterable[Component[Any]]:
    at = f"{HERE}.metrics"
    yield Component("dice", f"{at}:dice", "Dice similarity coefficient", ("Dice",))
    yield Component("iou", f"{at}:iou", "intersection over union", ("IoU",))
    yield Component("hd95", f"{at}:hd95", "95th percentile of surface distances", ("HD95",))
    yield Component(
        "surface_dice", f"{at}:surface_dice", "share of surfaces within a tolerance", ("SurfaceDice", "NSD")
    )


@hookimpl
def segplug_predictors() -> Iterable[Component[Any]]:
    yield Component("torch", f"{HERE}.predictors:TorchPredictor", "PyTorch on CPU or GPU")


@hookimpl
def segplug_stores() -> Iterable[Component[Any]]:
    yield Component("blosc2", f"{HERE}.stores:Blosc2Store", "chunked, compressed arrays, read by box")


@hookimpl
def segplug_executors() -> Iterable[Component[Any]]:
    yield Component("local", f"{HERE}.executors:LocalExecutor", "this process, or processes of this machine")


@hookimpl
def segplug_converters() -> Iterable[Component[Any]]:
    at = f"{HERE}.converters"
    yield Component("msd", f"{at}.msd:convert_msd", "Medical Segmentation Decathlon: channels in 4D files")
    yield Component("nnunet-v1", f"{at}.nnunet_v1:convert_nnunet_v1", "nnU-Net v1")
    yield Component("folder", f"{at}.folder:convert_folder", "a folder of images and masks, found by patterns")
    yield Component("bids", f"{at}.bids:convert_bids", "BIDS, with segmentations under derivatives")


@hookimpl(trylast=True)
def segplug_choose_normalizer(channel_name: str) -> str:
    """nnU-Net's rule by channel name; names it does not know are normalised per image."""
    by_name = {
        "ct": "CTNormalization",
        "nonorm": "NoNormalization",
        "rescale_to_0_1": "RescaleTo01Normalization",
        "rgb_to_0_1": "RGBTo01Normalization",
    }
    return by_name.get(channel_name.casefold(), "ZScoreNormalization")


@hookimpl(trylast=True)
def segplug_choose_reader(path: Path) -> str | None:
    """The first reader that supports the file's ending and can read it, in nnU-Net's order."""
    from segplug_builtin.readers import first_that_reads

    return first_that_reads(path)


@hookimpl(trylast=True)
def segplug_choose_writer(path: Path) -> str | None:
    """The writer for a file ending."""
    from segplug_builtin.writers import writer_for

    return writer_for(path)


@hookimpl(trylast=True)
def segplug_choose_trainer() -> str:
    """nnU-Net's own, unless the plan prescribes another."""
    return "nnunet"
