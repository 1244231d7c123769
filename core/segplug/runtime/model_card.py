"""A page about a model for the people who are given it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import segplug
from segplug.runtime.model_description import ModelDescription, ModelsDescription


def model_card(described: ModelsDescription) -> str:
    """Markdown: what the models segment, how well, and how to use them."""
    dataset = described.dataset
    lines = [
        f"# {dataset.name}",
        "",
        f"Segmentation models in nnU-Net v2's format, exported by segplug {segplug.__version__}.",
        "",
        "## Data",
        "",
        f"- channels: {', '.join(dataset.channel_names)}",
        f"- labels: {', '.join(f'{name} ({_shown(value)})' for name, value in dataset.labels.values.items())}",
        f"- training cases: {dataset.num_training}",
        f"- file format: {dataset.file_ending}",
        *(f"- {key}: {value}" for key, value in _about(dataset.raw)),
        "",
        "## Models",
    ]
    for model in described.models:
        lines += ["", f"### {model.name}", "", *_model(model)]
    if described.choice:
        choice = described.choice
        used = f"{' and '.join(choice['members'])}, folds {', '.join(map(str, choice['folds']))}"
        scores = f"{choice['mean_dice']:.4f}, after postprocessing {choice['postprocessed_dice']:.4f}"
        lines += ["", "## Choice", "", f"{used}: mean Dice of the cross-validation {scores}."]
    number = dataset.name.removeprefix("Dataset").partition("_")[0].lstrip("0") or "0"
    how = "--choice" if described.choice else f"-c {described.models[0].name.configuration}"
    first = described.models[0].name
    which = f"-c {first.configuration} -p {first.plans} -tr {first.trainer} -f {' '.join(described.models[0].folds)}"
    lines += [
        "",
        "## Use",
        "",
        "With segplug:",
        "",
        "```",
        "segplug model import FILE.zip",
        f"segplug predict -i IMAGES -o OUTPUT -d {number} {how}",
        "```",
        "",
        "With nnU-Net:",
        "",
        "```",
        "nnUNetv2_install_pretrained_model_from_zip FILE.zip",
        f"nnUNetv2_predict -i IMAGES -o OUTPUT -d {number} {which}",
        "```",
        "",
        "Dice is that of cross-validation on the training data; other scanners, protocols and patients may be",
        "segmented worse. The weights are subject to the licence of the data they were trained on.",
    ]
    return "\n".join(lines) + "\n"


def _model(model: ModelDescription) -> Iterator[str]:
    network = model.network
    yield f"- network: {network['class']}, patch {_times(network['patch_size'])}, batch {network['batch_size']}"
    yield f"- spacing: {' x '.join(f'{s:g}' for s in network['spacing'])}"
    folds = [f"{fold} ({', '.join(names)})" for fold, names in model.folds.items()]
    yield f"- folds: {', '.join(folds)}"
    outside = sorted(
        {f"{p['distribution']} {p['version']} ({p['kind']} {p['name']})" for p in model.providers if _outside(p)}
    )
    if outside:
        yield f"- needs plugins: {', '.join(outside)}"
    if model.dice:
        yield ""
        yield "| fold | mean Dice |"
        yield "|---|--:|"
        yield from (f"| {fold} | {_number(dice)} |" for fold, dice in model.dice.items())
    if model.crossval:
        yield ""
        yield "| class | Dice, all folds |"
        yield "|---|--:|"
        yield from (f"| {name} | {_number(dice)} |" for name, dice in model.crossval.items())


def _outside(provider: Mapping[str, str]) -> bool:
    return provider.get("distribution") not in ("segplug", None, "")


def _about(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("description", "reference", "licence", "license", "release"):
        if isinstance(raw.get(key), str) and raw[key].strip():
            yield key, " ".join(raw[key].split())


def _shown(value: int | tuple[int, ...]) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _times(values: Any) -> str:
    return " x ".join(map(str, values))


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
