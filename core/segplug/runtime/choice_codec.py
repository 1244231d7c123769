"""The choice on disk: nnU-Net's inference_information.json, and instructions for people beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import segplug
from segplug.errors import DataError, UsageError
from segplug.model import Choice
from segplug.runtime.files import read_json, write_json, write_text
from segplug.runtime.model_names import ModelName, crossval_name, ensemble_name, parse_model_name
from segplug.runtime.postprocessing_file import POSTPROCESSING, applied_by, has_steps, read_decision
from segplug.runtime.workspace import Workspace


def write_choice(
    workspace: Workspace,
    choice: Choice,
    *,
    considered: Sequence[ModelName],
    ensembles: bool,
    results: Mapping[str, float],
) -> None:
    """Write inference_information.json and inference_instructions.txt.

    Args:
        considered: the single models that were compared.
        ensembles: whether pairs of them were too.
        results: mean Dice of every candidate by its name.
    """
    information = {
        "folds": list(choice.folds),
        "dataset_name_or_id": choice.dataset,
        "considered_models": [
            {"plans": m.plans, "configuration": m.configuration, "trainer": m.trainer} for m in considered
        ],
        "ensembling_allowed": ensembles,
        "all_results": dict(results),
        "best_model_or_ensemble": {
            "result_on_crossval_pre_pp": choice.mean_dice,
            "result_on_crossval_post_pp": choice.postprocessed_dice,
            "postprocessing_file": str(choice.postprocessing.resolve()),
            "some_plans_file": str(choice.postprocessing.resolve().with_name("plans.json")),
            "selected_model_or_models": [
                {"configuration": m.configuration, "trainer": m.trainer, "plans_identifier": m.plans}
                for m in map(parse_model_name, (folder.name for folder in choice.members))
            ],
        },
        "segplug": {"version": segplug.__version__},
    }
    write_json(workspace.choice_file(choice.dataset), information, sort_keys=True)
    write_text(workspace.instructions_file(choice.dataset), instructions(choice))


def read_choice(file: Path) -> Choice:
    """Read inference_information.json of segplug or nnU-Net.

    Models and postprocessing are looked for beside the file, so that results can be moved.

    Raises:
        UsageError: there is no such file.
        DataError: it is damaged, or what it names is not there.
    """
    if not file.is_file():
        raise UsageError(f"{file}: no such file, so nothing is chosen. Run: segplug select {file.parent.name}")
    content = read_json(file)
    try:
        best = content["best_model_or_ensemble"]
        members = [
            ModelName(m["trainer"], m["plans_identifier"], m["configuration"]) for m in best["selected_model_or_models"]
        ]
        folds = tuple(f if isinstance(f, int) else str(f) for f in content["folds"])
        scores = float(best["result_on_crossval_pre_pp"]), float(best["result_on_crossval_post_pp"])
        recorded = Path(best["postprocessing_file"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: does not tell what was chosen ({type(error).__name__}: {error}). "
            f"Run: segplug select {file.parent.name}"
        ) from None
    if not members or any(part != Path(part).name for m in members for part in (str(m),)):
        raise DataError(f"{file}: names no models. Run: segplug select {file.parent.name}")
    root = file.parent
    folders = tuple(root / str(member) for member in members)
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise DataError(f"{file}: chose {', '.join(missing)}, which is not there. Import the model, or train it")
    usual = candidate_folder(root, members, folds) / POSTPROCESSING
    decision = usual if usual.is_file() else recorded.with_name(POSTPROCESSING)
    if not decision.is_file():
        raise DataError(f"{usual}: no such file, though {file.name} names it. Run: segplug select {root.name}")
    return Choice(root.name, folders, folds, *scores, decision)


def candidate_folder(root: Path, members: Sequence[ModelName], folds: Sequence[int | str]) -> Path:
    """Where the cross-validation of a model or an ensemble is, in a data set's folder of results."""
    if len(members) == 1:
        return root / str(members[0]) / crossval_name(folds)
    return root / "ensembles" / ensemble_name(members, folds)


def instructions(choice: Choice) -> str:
    """How to predict with a choice: in one command, and step by step."""
    decision, _ = read_decision(choice.postprocessing)
    folds = " ".join(f"-f {fold}" for fold in choice.folds)
    steps: list[str] = []
    outputs = ["OUTPUT"]
    if len(choice.members) > 1:
        outputs = [f"OUTPUT_{number}" for number, _ in enumerate(choice.members, start=1)]
    for folder, output in zip(choice.members, outputs, strict=True):
        keep = " --save-probabilities" if len(outputs) > 1 else ""
        steps.append(f"segplug predict -i INPUT -o {output} -m {shlex.quote(str(folder.resolve()))} {folds}{keep}")
    if len(outputs) > 1:
        steps.append(f"segplug ensemble {' '.join(f'-i {output}' for output in outputs)} -o OUTPUT")
    if has_steps(decision):
        chosen = shlex.quote(str(choice.postprocessing.resolve()))
        steps.append(f"segplug postprocess apply -i OUTPUT -o OUTPUT_POSTPROCESSED --decision {chosen}")
    scores = f"{choice.mean_dice:.4f}, after postprocessing {choice.postprocessed_dice:.4f}"
    lines = [
        f"{choice.dataset}: {' and '.join(folder.name for folder in choice.members)}",
        f"mean Dice of the cross-validation {scores}",
        "",
        "Predict with all of it in one go:",
        "",
        f"    {predict_command(choice)}",
        "",
        "Or step by step:",
        "",
        *(f"    {step}" for step in steps),
    ]
    return "\n".join(lines) + "\n"


def predict_command(choice: Choice) -> str:
    """The one command that predicts with a choice."""
    return f"segplug predict -i INPUT -o OUTPUT -d {choice.dataset} --choice"


def chosen_parts(choice: Choice) -> dict[str, Any]:
    """What of a choice decides its predictions beside the models, as JSON values."""
    decision, postprocessor = read_decision(choice.postprocessing)
    applied = {k: v for k, v in decision.items() if k not in ("input_folder", "postprocessed")}
    return {"folds": list(choice.folds), **applied_by(postprocessor), "decision": applied}
