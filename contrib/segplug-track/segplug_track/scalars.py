"""Names and values of what is plotted, the same in every destination."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from segplug_track.journal import Entry

LENGTH = 200
"""Of a class's or metric's name; MLflow takes 250 characters for all of it."""


def scalars(entry: Entry) -> dict[str, float]:
    """The numbers of an entry of `segplug_track.journal.to_deliver`; what is not defined (NaN Dice) is left out."""
    found: dict[str, float] = {}
    if entry["kind"] == "epoch":
        found = {"loss/train": entry["train_loss"], "loss/val": entry["val_loss"]}
        found |= {"learning_rate": entry["learning_rate"], "epoch_seconds": entry["seconds"]}
        found |= {"pseudo_dice_mean": entry["mean_dice"], "pseudo_dice_ema": entry["ema_dice"]}
        names = [name for _, name in entry["classes"]]
        if len(names) != len(entry["dice"]):
            names = [str(number) for number in range(1, len(entry["dice"]) + 1)]
        found |= _under("pseudo_dice", zip(names, entry["dice"], strict=True))
        found |= _under("extra", entry["extra"].items())
    elif entry["kind"] == "evaluated":
        where = "validation" if entry["place"] else "evaluation"
        for metric, value in entry["mean"].items():
            found[f"{where}_mean/{plain(metric)}"] = value
        for metric in dict.fromkeys(name for _, metrics in entry["scores"] for name in metrics):
            having = [(target, metrics[metric]) for target, metrics in entry["scores"] if metric in metrics]
            scores = [(_class(target, entry["classes"]), value) for target, value in having]
            found |= _under(f"{where}_{plain(metric)}", scores)
        found |= {f"{where}_cases": entry["cases"], f"{where}_cases_missing": entry["missing"]}
    elif entry["kind"] == "chosen":
        found = _under("cross_validation", entry["scores"].items())
        found |= {"chosen_mean_dice": entry["mean_dice"], "chosen_postprocessed_dice": entry["postprocessed_dice"]}
    plotted = {name: float(value) for name, value in found.items()}
    return {name: value for name, value in plotted.items() if not math.isnan(value) or name.startswith("loss/")}


def plain(name: str) -> str:
    """A name that MLflow and TensorBoard take as it is: word characters and hyphens."""
    return re.sub(r"[^\w\-]", "_", name)[:LENGTH]


def _under(prefix: str, values: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Values by plain names; of several that become one name, those after the first get their number."""
    found: dict[str, float] = {}
    for number, (name, value) in enumerate(values, start=1):
        key = f"{prefix}/{plain(name)}"
        found[f"{key}_{number}" if key in found else key] = value
    return found


def _class(target: Any, classes: Any) -> str:
    """The name of a class of an evaluation, which is a label or several (a region)."""
    known = next((name for value, name in classes if value == target), None)
    if known is not None:
        return str(known)
    return "+".join(map(str, target)) if isinstance(target, list) else str(target)
