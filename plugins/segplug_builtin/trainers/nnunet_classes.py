"""nnU-Net's trainer classes as settings: what `--trainer nnUNetTrainer_250epochs` means.

Every class of nnunetv2 2.8.1 stands in `CLASSES`. A class that changes several things is the sum of its parts, and so
may be any combination that no class has: `--trainer nnUNetTrainer_250epochs --set trainer.loss=dice_topk`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from segplug.errors import PluginError
from segplug.model import ComponentRef
from segplug_builtin.trainers.nnunet import NNUNetTrainer

Settings = Mapping[str, Any]


def _augmentation(name: str, **options: Any) -> Settings:
    return {"augmentation": ComponentRef(name, options)}


def _loss(name: str, **options: Any) -> Settings:
    return {"loss": ComponentRef(name, options)}


def _optimizer(name: str, **options: Any) -> Settings:
    return {"optimizer": ComponentRef(name, options)}


def _schedule(name: str, **options: Any) -> Settings:
    return {"schedule": ComponentRef(name, options)}


def _primus(component: str, size: str, **changes: Any) -> Settings:
    """How nnU-Net trains Primus (Wald, Roy, Isensee et al. 2025), whose training has no lower resolutions either."""
    return {
        "network": ComponentRef(component, {"size": size}),
        "deep_supervision": False,
        "lr": 3e-4,
        "weight_decay": 5e-2,
        "gradient_clip": 1.0,
        **_optimizer("adamw", beta2=0.98),
        **_schedule("poly", warmup_epochs=50),
        **changes,
    }


NO_MIRRORING = _augmentation("nnunet", mirror=False)
AMSGRAD = _optimizer("adamw", amsgrad=True)

CLASSES: Mapping[str, Settings | str] = {
    # length
    "nnUNetTrainer_1epoch": {"epochs": 1},
    "nnUNetTrainer_5epochs": {"epochs": 5},
    "nnUNetTrainer_10epochs": {"epochs": 10},
    "nnUNetTrainer_20epochs": {"epochs": 20},
    "nnUNetTrainer_50epochs": {"epochs": 50},
    "nnUNetTrainer_100epochs": {"epochs": 100},
    "nnUNetTrainer_250epochs": {"epochs": 250},
    "nnUNetTrainer_500epochs": {"epochs": 500},
    "nnUNetTrainer_750epochs": {"epochs": 750},
    "nnUNetTrainer_2000epochs": {"epochs": 2000},
    "nnUNetTrainer_4000epochs": {"epochs": 4000},
    "nnUNetTrainer_8000epochs": {"epochs": 8000},
    "nnUNetTrainer_250epochs_NoMirroring": {"epochs": 250, **NO_MIRRORING},
    "nnUNetTrainer_2000epochs_NoMirroring": {"epochs": 2000, **NO_MIRRORING},
    "nnUNetTrainer_4000epochs_NoMirroring": {"epochs": 4000, **NO_MIRRORING},
    "nnUNetTrainer_8000epochs_NoMirroring": {"epochs": 8000, **NO_MIRRORING},
    # loss
    "nnUNetTrainerCELoss": _loss("ce"),
    "nnUNetTrainerCELoss_5epochs": {"epochs": 5, **_loss("ce")},
    "nnUNetTrainerDiceLoss": _loss("dice"),
    "nnUNetTrainerDiceCELoss_noSmooth": _loss("dice_ce", smooth=0),
    "nnUNetTrainerTopk10Loss": _loss("topk", k=10),
    "nnUNetTrainerTopk10LossLS01": _loss("topk", k=10, label_smoothing=0.1),
    "nnUNetTrainerDiceTopK10Loss": _loss("dice_topk", k=10),
    # optimiser
    "nnUNetTrainerAdam": AMSGRAD,
    "nnUNetTrainerAdam1en3": {"lr": 1e-3, **AMSGRAD},
    "nnUNetTrainerAdam3en4": {"lr": 3e-4, **AMSGRAD},
    "nnUNetTrainerVanillaAdam": _optimizer("adam"),
    "nnUNetTrainerVanillaAdam1en3": {"lr": 1e-3, **_optimizer("adam")},
    "nnUNetTrainerVanillaAdam3en4": {"lr": 3e-4, **_optimizer("adam")},
    "nnUNetTrainerAdan": _optimizer("adan"),
    "nnUNetTrainerAdan1en1": {"lr": 1e-1, **_optimizer("adan")},
    "nnUNetTrainerAdan1en3": {"lr": 1e-3, **_optimizer("adan")},
    "nnUNetTrainerAdan3en4": {"lr": 3e-4, **_optimizer("adan")},
    "nnUNetTrainerAdanCosAnneal": {**_optimizer("adan"), **_schedule("cosine")},
    # learning rate
    "nnUNetTrainerCosAnneal": _schedule("cosine"),
    "nnUNetTrainer_warmup": _schedule("poly", warmup_epochs=50),
    # network
    "nnUNetTrainerBN": {"norm": "batch"},
    "nnUNetTrainerNoDeepSupervision": {"deep_supervision": False},
    # batches
    "nnUNet_Trainer_BS8": {"batch_size": 8},
    "nnUNetTrainer_probabilisticOversampling": {"probabilistic_oversampling": "as_fixed"},
    "nnUNetTrainer_probabilisticOversampling_033": {
        "probabilistic_oversampling": True,
        "oversample_foreground": 0.33,
    },
    "nnUNetTrainer_probabilisticOversampling_010": {
        "probabilistic_oversampling": True,
        "oversample_foreground": 0.1,
    },
    # augmentation
    "nnUNetTrainerNoDA": _augmentation("none"),
    "nnUNetTrainerNoMirroring": NO_MIRRORING,
    "nnUNetTrainer_onlyMirror01": _augmentation("nnunet", mirror="all_but_last"),
    "nnUNetTrainer_onlyMirror01_1500ep": {"epochs": 1500, **_augmentation("nnunet", mirror="all_but_last")},
    "nnUNetTrainer_onlyMirror01_DASegOrd0": _augmentation("nnunet", mirror="all_but_last", labels="nearest"),
    "nnUNetTrainer_onlyMirror01_DA5": _augmentation("stronger", mirror="all_but_last"),
    "nnUNetTrainer_DASegOrd0": _augmentation("nnunet", labels="nearest"),
    "nnUNetTrainer_DASegOrd0_NoMirroring": _augmentation("nnunet", labels="nearest", mirror=False),
    "nnUNetTrainer_noDummy2DDA": _augmentation("nnunet", dummy_2d=False),
    "nnUNetTrainerDA5": _augmentation("stronger"),
    "nnUNetTrainerDA5_10epochs": {"epochs": 10, **_augmentation("stronger")},
    "nnUNetTrainerDA5ord0": _augmentation("stronger", labels="nearest", images="nearest"),
    "nnUNetTrainerDA5Segord0": _augmentation("stronger", labels="nearest"),
    # transformers
    **{f"nnUNet_Primus_{size}_Trainer": _primus("primus", size) for size in "SBML"},
    "nnUNet_Primus_M_Trainer_BS8": _primus("primus", "M", batch_size=8),
    "nnUNet_Primus_M_Trainer_BS8_2e4": _primus("primus", "M", batch_size=8, lr=2e-4),
    **{
        f"nnUNet_Primus{v}{size}_Trainer": _primus(f"primus_{v.lower()}", size) for v in ("V2", "V3") for size in "SBML"
    },
    **{f"_Primus_{size}_96_BS1": _primus("primus", size, patch_size=(96,) * 3, batch_size=1) for size in "SBM"},
    "_Primus_L_48_BS1": _primus("primus", "L", patch_size=(48,) * 3, batch_size=1),
    # not to be had: why, in words that end a sentence
    "AbstractPrimus": "has no network: name a size of Primus, as in nnUNet_Primus_M_Trainer",
    "nnUNetTrainerBenchmark_5epochs": "measures speed and keeps no model: segplug bench train --iterations 250",
    "nnUNetTrainerBenchmark_5epochs_noDataLoading": (
        "measures speed and keeps no model: segplug bench train --iterations 250 --no-data-loading"
    ),
}
"""Class of nnunetv2 -> settings of `NNUNetTrainer` that differ from its defaults, or why it is not to be had."""


def in_words(name: str) -> str:
    """What a class means, as `--set` has it: `epochs=250 augmentation=nnunet augmentation.mirror=false`."""
    settings = CLASSES[name]
    if isinstance(settings, str):
        return f"not to be had: {settings}"
    parts = []
    for field, value in settings.items():
        if isinstance(value, ComponentRef):
            parts += [f"{field}={value.name}", *(f"{field}.{key}={_text(v)}" for key, v in value.options.items())]
        else:
            parts.append(f"{field}={_text(value)}")
    return " ".join(parts)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _factory(name: str) -> Callable[[], NNUNetTrainer]:
    def make() -> NNUNetTrainer:
        settings = CLASSES[name]
        if isinstance(settings, str):
            raise PluginError(f"trainer {name} of nnunetv2 {settings}")
        return replace(NNUNetTrainer(), **settings)

    return make


def __getattr__(name: str) -> Callable[[], NNUNetTrainer]:
    """The factory of a class, by its name."""
    if name in CLASSES:
        return _factory(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
