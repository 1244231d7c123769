"""A page about a data set: its images, its plans, what was trained on it, and what was chosen."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from segplug.errors import DataError, PluginError, SegplugError, UsageError
from segplug.model import CaseEvaluation, Choice, Evaluation, Plan, RawDataset
from segplug.runtime.case_reading import read_image, read_labels
from segplug.runtime.case_work import each_case
from segplug.runtime.choice_codec import candidate_folder, instructions, read_choice
from segplug.runtime.evaluation import SUMMARY, read_summary
from segplug.runtime.files import read_json, write_text
from segplug.runtime.model_names import parse_model_name, trained_models
from segplug.runtime.network import build_network, count_input_channels
from segplug.runtime.overlay import draw_overlay
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.planned import plans_names
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import choose_reader
from segplug.runtime.report import page, plots
from segplug.runtime.report.facts import CaseFacts, ModelFacts, case_score, look_at_case, read_model, worst_cases
from segplug.runtime.report.survey import find_dataset

STAGE = "report"
REPORT = "report.html"
WORST = 6


def report(project: Project, dataset: str | int | Path, *, output: Path | None = None, worst: int = WORST) -> Path:
    """Write one HTML page that needs no other file and no network.

    It shows what there is: images and label maps of the raw data set, every plan, every trained model with its
    validation, the choice. What is missing yet is told with the command that makes it; what cannot be read, or is not
    there any more (cases, or all of the raw data), as such.

    Args:
        dataset: id, name or path of a data set.
        output: None for `report.html` in the data set's folder of results.
        worst: cases to show with overlays, those with the lowest scores.

    Returns:
        The page's path.

    Raises:
        UsageError: there is no such data set, or the folder of results is needed and not set.
        DataError: dataset.json is damaged, and there is no copy of it.
    """
    raw, missing = find_dataset(project.workspace, dataset)
    target = output or project.workspace.results_folder(raw.name) / REPORT
    reader_name = choose_reader(raw, project.kernel) if raw.cases else "no reader, as there are no cases"
    with project.stage(STAGE, raw.name, len(raw.cases)):
        cases, problems = _look(project, raw, reader_name) if raw.cases else ([], [])
        plans, plan_problems = _plans(project, raw.name)
        models = _models(project, raw.name)
        choice, no_choice = _choice(project, raw.name)
        evaluations = _evaluations(project, raw.name, models, choice)
        best = next(iter(evaluations), None)
        write_text(
            target,
            page.render(
                raw.name,
                about=_about(raw, cases, reader_name),
                data_problems=[*missing, *problems],
                data_plots=_data_plots(raw, cases),
                cases=page.case_table(cases, raw.description.labels) if cases else None,
                plans=[_plan(project, raw, plan) for plan in plans],
                plan_problems=plan_problems,
                models=[_model(model) for model in models if model.folds],
                compared=page.comparison_table(evaluations, raw.description.labels) if evaluations else None,
                scores=[
                    {"title": name, "table": page.score_table(found, raw.description.labels)}
                    for name, found in evaluations.items()
                ],
                worst=[] if best is None else _worst(project, raw, reader_name, evaluations[best].cases, worst),
                worst_of=best,
                choice=None if choice is None else _told(project, choice),
                no_choice=no_choice,
            ),
        )
    return target


def _look(project: Project, raw: RawDataset, reader: str) -> tuple[list[CaseFacts], list[str]]:
    """Every case that can be read, and what is wrong with the others."""
    work = partial(look_at_case, reader=project.kernel.registry.build("readers", reader), description=raw.description)
    found: dict[str, CaseFacts] = {}
    wrong = each_case(project, STAGE, work, raw.cases, found.__setitem__)
    return [found[name] for name in raw.cases if name in found], [f"{name}: {error}" for name, error in wrong.items()]


def _about(raw: RawDataset, cases: Sequence[CaseFacts], reader: str) -> list[tuple[str, str]]:
    description = raw.description
    labels = ", ".join(f"{name} = {_value(value)}" for name, value in description.labels.values.items())
    return [
        ("folder", str(raw.folder)),
        ("training cases", str(len(raw.cases))),
        ("channels", ", ".join(description.channel_names)),
        ("labels", labels),
        ("files", f"{description.file_ending}, read by {reader}"),
        ("kind", "2D" if cases and all(case.is_2d for case in cases) else "3D"),
    ]


def _value(value: int | tuple[int, ...]) -> str:
    return str(value) if isinstance(value, int) else " or ".join(map(str, value))


def _data_plots(raw: RawDataset, cases: Sequence[CaseFacts]) -> list[tuple[str, str]]:
    if not cases:
        return []
    return [
        ("Shapes and spacings", plots.shapes_and_spacings(cases)),
        ("Intensities", plots.intensities(cases, raw.description.channel_names)),
        ("Sizes of the labels", plots.label_sizes(cases, raw.description.labels)),
    ]


def _plans(project: Project, name: str) -> tuple[list[Plan], list[str]]:
    """Those that can be read, and what is wrong with the others."""
    plans, problems = [], []
    for plans_name in plans_names(project.workspace, name) if project.workspace.preprocessed is not None else ():
        try:
            plans.append(read_plan(project.workspace.plans_file(name, plans_name)))
        except DataError as error:
            problems.append(str(error))
    return plans, problems


def _plan(project: Project, raw: RawDataset, plan: Plan) -> dict[str, Any]:
    about = [("planner", plan.planner), ("reader", plan.reader.name)]
    if plan.transpose_forward != tuple(range(len(plan.transpose_forward))):
        about.append(("axes, transposed", " ".join(map(str, plan.transpose_forward))))
    recipe = plan.recipe("")
    if recipe is not None:
        about.append(("recipe", f"{recipe.name}: {', '.join(f'{k} {_setting(v)}' for k, v in recipe.options.items())}"))
    parameters = {name: _count_parameters(project, raw, plan, name) for name in plan.configurations}
    return {"name": plan.plans_name, "about": about, "table": page.plan_table(plan, parameters)}


def _setting(value: Any) -> str:
    """A component is shown by its name and options."""
    if not isinstance(value, Mapping):
        return str(value)
    options = " ".join(f"{key}={option}" for key, option in (value.get("options") or {}).items())
    return f"{value.get('name')} {options}".strip()


def _count_parameters(project: Project, raw: RawDataset, plan: Plan, configuration: str) -> int | None:
    """None if the network is not to be had here: its plugin is not installed."""
    import torch

    chosen, labels = plan.configurations[configuration], raw.description.labels
    inputs = count_input_channels(chosen, raw.description.num_channels, labels)
    try:
        with torch.device("meta"):  # shapes only
            network = build_network(project.kernel.registry, chosen, inputs, labels.output_channels, True)
    except (PluginError, DataError):
        return None
    return sum(weights.numel() for weights in network.parameters())


def _models(project: Project, name: str) -> list[ModelFacts]:
    if project.workspace.results is None:
        return []
    root = project.workspace.results_folder(name)
    return [read_model(root, model) for model in trained_models(root)]


def _model(model: ModelFacts) -> dict[str, Any]:
    shown = [fold for fold in model.folds if fold.epochs]
    return {
        "name": str(model.name),
        "curves": plots.curves(shown) if shown else "",
        "folds": page.fold_table(model),
        "problems": [f"fold {fold.fold}: {fold.problem}" for fold in model.folds if fold.problem],
    }


def _choice(project: Project, name: str) -> tuple[Choice | None, str]:
    """The choice, or why there is none."""
    if project.workspace.results is None:
        return None, "The folder of results is not set."
    file = project.workspace.choice_file(name)
    if not file.is_file():
        return None, f"Nothing is chosen yet. With every fold trained, run: segplug select {name}"
    try:
        return read_choice(file), ""
    except (DataError, UsageError) as error:
        return None, str(error)


def _evaluations(
    project: Project, name: str, models: Sequence[ModelFacts], choice: Choice | None
) -> dict[str, Evaluation]:
    """What was validated, by name: what was chosen first, then by mean Dice."""
    found = {str(m.name): m.evaluation for m in models if m.evaluation is not None}
    found = dict(sorted(found.items(), key=lambda item: _rank(item[1]), reverse=True))
    if choice is None:
        return found
    members = [parse_model_name(folder.name) for folder in choice.members]
    summary = candidate_folder(project.workspace.results_folder(name), members, choice.folds) / SUMMARY
    if not summary.is_file():
        return found
    title = str(members[0]) if len(members) == 1 else summary.parent.name
    return {title: read_summary(summary), **{other: e for other, e in found.items() if other != title}}


def _rank(evaluation: Evaluation | None) -> float:
    score = math.nan if evaluation is None else evaluation.mean_dice
    return -math.inf if math.isnan(score) else score


def _worst(
    project: Project, raw: RawDataset, reader_name: str, cases: Sequence[CaseEvaluation], most: int
) -> list[dict[str, str]]:
    reader = project.kernel.registry.build("readers", reader_name) if raw.cases else None
    shown = []
    for case in worst_cases(cases, most):
        title = f"{case.name}: mean Dice {case_score(case):.4f}"
        entry = {"title": title, "alt": f"Slices of {case.name} with reference and prediction", "picture": ""}
        try:
            entry["picture"] = _picture(raw, reader, case)
        except SegplugError as error:
            entry["problem"] = str(error)
        shown.append(entry)
    return shown


def _picture(raw: RawDataset, reader: Any, case: CaseEvaluation) -> str:
    """An overlay as PNG in base64."""
    files = raw.cases.get(case.name)
    if files is None or files.label is None:
        raise DataError(f"{raw.folder}: has no training case {case.name}, so it cannot be shown")
    image = read_image(reader, files, raw.description.num_channels)
    maps = {"reference": read_labels(reader, files.label), "prediction": read_labels(reader, case.prediction)}
    wrong = next((caption for caption, labels in maps.items() if labels.shape != image.shape), None)
    if wrong is not None:
        raise DataError(f"case {case.name}: {wrong} {maps[wrong].shape} and image {image.shape} differ in shape")
    figure = draw_overlay(image, maps, raw.description.labels)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=90, facecolor=figure.get_facecolor())
    return base64.b64encode(png.getvalue()).decode()


def _told(project: Project, choice: Choice) -> dict[str, Any]:
    results: Mapping[str, float] = read_json(project.workspace.choice_file(choice.dataset)).get("all_results") or {}
    about = [
        ("chosen", " and ".join(folder.name for folder in choice.members)),
        ("folds", ", ".join(map(str, choice.folds))),
        ("mean Dice of the cross-validation", f"{choice.mean_dice:.4f}"),
        ("after postprocessing", f"{choice.postprocessed_dice:.4f}"),
    ]
    table = page.result_table(results) if results else None
    return {"about": about, "table": table, "instructions": instructions(choice)}
